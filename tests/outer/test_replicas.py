import copy
import pickle

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import fit, functional, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach
from metalearn.data import Sinusoid
from metalearn.types import Batch, Episode
from tests.cases import RandomMask, relative_difference, sine_episodes

RULES = [
    inner.SGD(0.05),
    inner.MetaSGD(0.05),
    inner.LearnedRate(inner.Turtle(("grad", "grad_history"), hidden=(4,), lr=0.1), "parameter"),
    inner.LSTM(0.05, hidden_size=3),
    inner.Masked(inner.SGD(0.05)),
    RandomMask(0.05),
]
R, TASKS = 3, 2


def build(seed, rule=RULES[0], **options):
    torch.manual_seed(seed)
    return outer.MetaLearner(
        models.mlp(1, [6, 6], 1).double(), F.mse_loss, rule, **{"num_steps": 2, **options}
    )


def part(tree, index):
    return take(tree, slice(index * TASKS, (index + 1) * TASKS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.Stepwise(order=1)], ids=str)
def test_training_equals_separate_runs(rule, estimator):
    learners = [build(seed, rule, estimator=estimator) for seed in range(R)]
    replicas = outer.Replicas(learners)
    together = torch.optim.Adam(replicas.parameters(), lr=0.01)
    alone = [torch.optim.Adam(learner.parameters(), lr=0.01) for learner in learners]
    for step in range(3):
        episodes = sine_episodes(R * TASKS)
        keys = torch.arange(R * TASKS) + 100 * step
        together.zero_grad()
        losses = replicas(episodes, keys=keys)
        losses.sum().backward()
        replicas.clip_grad_norm_(0.5)
        together.step()
        for index, (learner, optimizer) in enumerate(zip(learners, alone, strict=True)):
            optimizer.zero_grad()
            loss = learner(part(episodes, index), keys=part(keys, index))
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 0.5)
            optimizer.step()
            torch.testing.assert_close(losses[index].detach(), loss.detach(), rtol=1e-10, atol=0)
    for index, learner in enumerate(learners):
        assert (
            relative_difference(tree_detach(replicas[index].meta), tree_detach(learner.meta)) < 1e-9
        )


def test_print_shows_their_number():
    assert repr(outer.Replicas([build(0), build(1)])).splitlines()[1] == "  2 replicas"


def test_one_does_not_influence_another():
    learners = [build(seed) for seed in range(R)]
    with torch.no_grad():
        learners[1].model[0].weight.fill_(torch.nan)
    estimate = outer.Replicas([learners[0], learners[2], learners[1]]).estimate(
        sine_episodes(R * TASKS)
    )
    assert estimate.diagnostics["finite"].tolist() == [
        [True] * TASKS,
        [True] * TASKS,
        [False] * TASKS,
    ]
    assert estimate.gradient.init["0.weight"][:2].isfinite().all()


def test_compiled_equals_eager():
    episodes, keys = sine_episodes(R * TASKS), torch.arange(R * TASKS)
    eager, compiled = (
        outer.Replicas([build(seed, RULES[2], compile=how) for seed in range(R)]).estimate(
            episodes, keys
        )
        for how in (False, {"backend": "eager"})
    )
    assert relative_difference(eager.gradient, compiled.gradient) < 1e-12


def test_starts_that_are_not_learned_are_stacked_too():
    learners = [build(seed, fast="4", learn_init=False) for seed in range(R)]
    replicas = outer.Replicas(learners)
    assert replicas.learner.model[4].weight.shape == (R, 1, 6)
    assert "model.4.weight" not in dict(replicas.learner.named_parameters())
    episodes, keys = sine_episodes(R * TASKS), torch.arange(R * TASKS)
    estimate = replicas.estimate(episodes, keys)
    for index, learner in enumerate(learners):
        alone = learner.estimate(part(episodes, index), part(keys, index))
        assert (
            relative_difference(take(estimate.gradient.shared, index), alone.gradient.shared)
            < 1e-10
        )


def test_tied_parameters_stay_tied():
    def tied(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1))
        model[2].weight = model[0].weight
        return outer.MAML(model.double(), F.mse_loss, inner.SGD(0.1), num_steps=1)

    replicas = outer.Replicas([tied(seed) for seed in range(R)])
    model = replicas.learner.model
    assert model[0].weight is model[2].weight
    one = replicas[1].model
    assert one[0].weight is one[2].weight


def test_copies_pickles_and_loads():
    replicas = outer.Replicas([build(seed) for seed in range(R)])
    episodes, keys = sine_episodes(R * TASKS), torch.arange(R * TASKS)
    expected = replicas(episodes, keys=keys)
    other = outer.Replicas([build(seed + 10) for seed in range(R)])
    other.load_state_dict(replicas.state_dict())
    for copied in (copy.deepcopy(replicas), pickle.loads(pickle.dumps(replicas)), other):
        assert torch.equal(copied(episodes, keys=keys), expected)
    with torch.no_grad():
        assert torch.equal(replicas(episodes, keys=keys), expected)


def test_no_grad_of_shared_constants():
    learners = [build(0) for _ in range(2)]
    assert len(outer.Replicas(learners)) == 2
    assert outer.Replicas(learners)[-1].model[0].weight.shape == (6, 1)


def test_fit_keeps_the_best_of_each():
    replicas = outer.Replicas([build(seed).float() for seed in range(R)])
    scores = iter([3.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, float("nan")])
    states = []

    def validate(learner):
        states.append(copy.deepcopy(learner.state_dict()))
        return next(scores)

    optimizer = torch.optim.Adam(replicas.parameters())
    tasks = Sinusoid(3, 3)
    history = fit(
        replicas,
        tasks,
        optimizer,
        3,
        meta_batch_size=2,
        validate=validate,
        validate_every=1,
        progress=False,
    )
    assert history.loss.shape == (3, R)
    assert history.best_iteration == [2, 1, 2]
    replicas.load_state_dict(history.best_state)
    for index, state in enumerate((states[3], states[1], states[5])):
        best = replicas[index].state_dict()
        assert all(torch.equal(best[name], tensor) for name, tensor in state.items())


def test_fit_clips_each():
    learners = [build(seed) for seed in range(2)]
    with torch.no_grad():
        learners[0].model[4].bias.fill_(1e4)
    replicas = outer.Replicas(learners)
    batches = [sine_episodes(2 * TASKS)]
    before = copy.deepcopy(replicas)
    fit(
        replicas,
        batches,
        torch.optim.SGD(replicas.parameters(), 1.0),
        1,
        max_grad_norm=0.1,
        progress=False,
    )
    moved = [
        (a - b).reshape(2, -1)
        for a, b in zip(replicas.parameters(), before.parameters(), strict=True)
    ]
    torch.testing.assert_close(
        torch.cat(moved, 1).norm(dim=1), torch.full((2,), 0.1).double(), rtol=1e-4, atol=0
    )


def test_gradients_within_the_bound_are_not_clipped():
    replicas = outer.Replicas([build(seed) for seed in range(R)])
    replicas(sine_episodes(R * TASKS)).sum().backward()
    before = [param.grad.clone() for param in replicas.parameters()]
    assert replicas.clip_grad_norm_(1e6).shape == (R,)
    assert all(
        torch.equal(param.grad, grad)
        for param, grad in zip(replicas.parameters(), before, strict=True)
    )


def test_a_replica_that_never_had_a_finite_score_has_no_best():
    replicas = outer.Replicas([build(seed) for seed in range(2)])
    scores = iter([2.0, float("nan"), 1.0, float("nan")])
    optimizer, batches = torch.optim.Adam(replicas.parameters()), [sine_episodes(2)]
    options = {"validate": lambda learner: next(scores), "validate_every": 1, "progress": False}
    assert fit(replicas, batches, optimizer, 2, **options).best_iteration == [2, None]


def test_dropout_trains():
    def with_dropout(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
        return outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1)

    replicas = outer.Replicas([with_dropout(seed) for seed in range(R)])
    replicas(sine_episodes(R * TASKS)).sum().backward()
    replicas.eval()
    with torch.no_grad():
        assert replicas(sine_episodes(R * TASKS)).isfinite().all()


GRAPHS = []


def counting(graph, inputs):
    GRAPHS.append(graph)
    return graph


def test_the_check_compiles_nothing():
    replicas = outer.Replicas([build(seed, compile={"backend": counting}) for seed in range(R)])
    replicas(sine_episodes(R * TASKS))
    assert len(GRAPHS) == 1


def test_shapes_are_checked_at_every_call():
    replicas = outer.Replicas([build(seed, support_batches=2) for seed in range(R)])
    replicas(sine_episodes(R, k_shot=4))
    with pytest.raises(ValueError, match="divide the 5 support examples"):
        replicas(sine_episodes(R, k_shot=5))


def test_nothing_to_learn_is_the_loss_alone():
    replicas = outer.Replicas([build(seed) for seed in range(R)]).requires_grad_(False)
    assert not replicas(sine_episodes(R * TASKS)).requires_grad


def buffered(value):
    model = models.mlp(1, [6], 1)
    model.register_buffer("scale", torch.tensor(value))
    return outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1)


def with_loss(criterion):
    return outer.MAML(models.mlp(1, [6], 1), criterion, inner.SGD(0.1), num_steps=1)


def of_loss(function):
    def support_loss(params, shared, episode, step):
        return function(params["weight"], shared)

    return outer.MAML(
        nn.Linear(1, 1), F.mse_loss, inner.SGD(0.1), num_steps=1, support_loss=support_loss
    )


BAD = {
    "none": (lambda: outer.Replicas([]), ValueError, "at least one learner"),
    "models": (
        lambda: outer.Replicas([models.mlp(1, [3], 1)]),
        TypeError,
        "be given learners; got Sequential",
    ),
    "other steps": (
        lambda: outer.Replicas([build(0), build(1, num_steps=5)]),
        ValueError,
        "got 2 in learner 0 and 5",
    ),
    "other rules": (
        lambda: outer.Replicas([build(0), build(1, inner.SGD(0.1))]),
        ValueError,
        "learners' update rule must be the same",
    ),
    "other criteria": (
        lambda: outer.Replicas(
            [build(0), outer.MAML(build(0).model, F.l1_loss, inner.SGD(0.05), num_steps=2)]
        ),
        ValueError,
        "learners' losses must be the same",
    ),
    "other losses": (
        lambda: outer.Replicas([of_loss(F.mse_loss), of_loss(F.l1_loss)]),
        ValueError,
        "learners' losses must be the same",
    ),
    "other options of a loss": (
        lambda: outer.Replicas(
            [with_loss(nn.HuberLoss(delta=1.0)), with_loss(nn.HuberLoss(delta=2.0))]
        ),
        ValueError,
        "learners' module criterion must be the same",
    ),
    "other dtypes": (
        lambda: outer.Replicas([build(0), build(1).float()]),
        ValueError,
        "learners' tensor model.0.weight must be the same",
    ),
    "a loop": (
        lambda: outer.Replicas([build(0, batching="loop")]),
        ValueError,
        "Leave both arguments out.",
    ),
    "chunks": (lambda: outer.Replicas([build(0, chunk_size=2)]), ValueError, "chunk_size=2"),
    "other constants": (
        lambda: outer.Replicas([buffered(1.0), buffered(2.0)]),
        ValueError,
        "another model.scale in learner 1",
    ),
    "too few tasks": (
        lambda: outer.Replicas([build(seed) for seed in range(R)])(sine_episodes(4)),
        ValueError,
        "tasks.sample(3 * meta_batch_size)",
    ),
    "keys": (
        lambda: outer.Replicas([build(0)])(sine_episodes(2), keys=functional.draw_keys(3)),
        ValueError,
        "int64 of shape (2,)",
    ),
    "a slice": (lambda: outer.Replicas([build(0)])[0:1], TypeError, "[x[i] for i in range(1)]"),
    "one learner": (
        lambda: outer.Replicas(build(0)),
        TypeError,
        "a list of learners; got MetaLearner",
    ),
    "a negative norm": (
        lambda: outer.Replicas([build(0)]).clip_grad_norm_(-1.0),
        ValueError,
        "max_norm must be posi",
    ),
    "no such replica": (
        lambda: outer.Replicas([build(0)])[1],
        IndexError,
        "index must be from -1 to 0",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"fast": "4"}, {"estimator": outer.Implicit(5.0, outer.Direct()), "num_steps": 3}],
    ids=["all", "shared", "implicit"],
)
@pytest.mark.parametrize("num_steps", [None, 0, 6])
def test_validation_equals_evaluating_each(options, num_steps):
    learners = [build(seed, **options).float() for seed in range(R)]
    tasks = Sinusoid(5, 5)
    scores = []
    for learner in (outer.Replicas(learners), *learners):
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.0)
        settings = {"validate": tasks, "num_validation_tasks": 40, "progress": False}
        settings["num_validation_steps"] = num_steps
        scores.append(fit(learner, tasks, optimizer, 1, meta_batch_size=2, **settings).scores[1])
    torch.testing.assert_close(scores[0], scores[1:], rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Adafactor])
def test_optimizers_that_mix_replicas_are_refused(kind):
    replicas = outer.Replicas([build(seed) for seed in range(R)])
    with pytest.raises(ValueError, match=f"on each element by itself.*got {kind.__name__}.*Adam"):
        fit(replicas, Sinusoid(5, 5), kind(replicas.parameters()), 1, meta_batch_size=1)


def test_data_of_another_kind_are_checked_anew():
    replicas, episodes = (
        outer.Replicas([build(seed) for seed in range(R)]),
        sine_episodes(R * TASKS),
    )
    replicas(episodes)
    with pytest.raises(ValueError, match="outputs and targets must have one shape"):
        replicas(Episode(*(batch._replace(y=batch.y[..., 0]) for batch in episodes)))


def test_the_labels_of_all_replicas_are_checked():
    rule, x = inner.SGD(0.1), torch.randn(4, 3, 1)
    replicas = outer.Replicas(
        [outer.MAML(models.mlp(1, [4], 2), F.cross_entropy, rule, num_steps=1) for _ in range(2)]
    )
    y = torch.zeros(4, 3, dtype=torch.long)
    y[3] = 7
    with pytest.raises(ValueError, match="labels must be below the model's 2 outputs"):
        replicas(Episode(Batch(x, y), Batch(x, y)))


def test_what_learners_carry_starts_anew():
    estimator = outer.Unrolled(multi_step=outer.MultiStep(1000))
    learners = [build(seed, estimator=estimator) for seed in range(R)]
    learners[0](sine_episodes())
    replicas = outer.Replicas(learners)
    assert replicas.learner.diagnostics == {}
    replicas(sine_episodes(R * TASKS))
    assert [replicas[index].carry.value.common.item() for index in range(R)] == [1.0] * R
    assert not any("carry" in name for name in replicas.constants)


def test_batching_can_be_chosen_anew():
    replicas, episodes = (
        outer.Replicas([build(seed) for seed in range(R)]),
        sine_episodes(R * TASKS),
    )
    given = torch.arange(R * TASKS)
    expected = replicas(episodes, keys=given)
    replicas.set_batching(compile={"backend": "no such backend"})
    with pytest.raises(RuntimeError):
        replicas(episodes, keys=given)
    replicas.set_batching()
    assert torch.equal(replicas(episodes, keys=given), expected)
    replicas.set_batching(cuda_graph=True)
    with pytest.raises(ValueError, match="cuda_graph=True must be on a GPU; got cpu"):
        replicas(episodes, keys=given)


def test_nothing_to_clip():
    assert (
        outer.Replicas([build(seed) for seed in range(R)]).clip_grad_norm_(1.0).tolist()
        == [0.0] * R
    )


def test_forward_mode_is_refused():
    replicas = outer.Replicas([build(seed) for seed in range(R)])
    weights = dict(replicas.named_parameters())
    ones = {name: torch.ones_like(weight) for name, weight in weights.items()}

    def loss(weights):
        return torch.func.functional_call(replicas, weights, (sine_episodes(R * TASKS),))

    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(loss, (weights,), (ones,))


def test_checks_draw_nothing():
    replicas, episodes = (
        outer.Replicas([build(seed) for seed in range(R)]),
        sine_episodes(R * TASKS),
    )
    before = torch.get_rng_state()
    replicas(episodes, keys=torch.arange(R * TASKS))
    assert torch.equal(torch.get_rng_state(), before)
