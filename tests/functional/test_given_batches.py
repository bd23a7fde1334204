"""Support sets with one batch a step, and with indices into one data set, against loops by hand."""

import pickle

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import evaluate, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_map
from metalearn.functional import GivenBatches, IndexedBatches
from metalearn.types import Batch, Episode, Indexed
from tests.cases import EXACT_WAYS, keys, relative_difference, sine_learner, task
from tests.outer.cases import assert_refused, learner

TASKS, STEPS, SIZE, HELD = 3, 3, 2, 7
INDICES = torch.randint(HELD, (TASKS, STEPS, SIZE), generator=torch.Generator().manual_seed(3))


def batch(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    x = 10 * torch.rand(*shape, 1, generator=generator, dtype=torch.float64) - 5
    return Batch(x, torch.sin(x))


def rows_of(data):
    """Return what the steps see of data sets, `[tasks, steps, batch, ...]`."""
    tasks = torch.arange(TASKS)[:, None, None]
    return tree_map(lambda leaf: leaf[tasks, INDICES], data)


HELD_ONCE = batch(TASKS, HELD)
FORMS = {
    "given": (GivenBatches(), rows_of(HELD_ONCE)),
    "indexed": (IndexedBatches(), Batch(Indexed(HELD_ONCE.x, INDICES), HELD_ONCE.y)),
}


@pytest.fixture(params=FORMS)
def form(request):
    """How batches are told, and episodes that tell them."""
    batches, support = FORMS[request.param]
    return batches, Episode(support, batch(TASKS, 4))


def by_hand(rate=0.01):
    """Return the second-order gradient of the mean query loss, and the adapted models."""
    model, rows, query = sine_learner().model, rows_of(HELD_ONCE), batch(TASKS, 4)
    start, total, adapted = dict(model.named_parameters()), 0.0, []
    for index in range(TASKS):
        params = start
        for step in range(STEPS):
            output = torch.func.functional_call(model, params, (rows.x[index, step],))
            loss = F.mse_loss(output, rows.y[index, step])
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {
                name: p - rate * g for (name, p), g in zip(params.items(), grads, strict=True)
            }
        output = torch.func.functional_call(model, params, (query.x[index],))
        total = total + F.mse_loss(output, query.y[index]) / TASKS
        adapted.append({name: param.detach() for name, param in params.items()})
    gradient = torch.autograd.grad(total, list(start.values()))
    return dict(zip(start, gradient, strict=True)), adapted


@pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
def test_second_order(form, options):
    batches, episodes = form
    one = sine_learner(support_batches=batches, **options)
    expected, adapted = by_hand()
    estimate = one.estimate(episodes, keys())
    assert relative_difference(estimate.gradient.init, expected) < 1e-12
    ours = one.adapt(episodes.support)
    for index, params in enumerate(adapted):
        assert relative_difference(take(ours.params, index), params) < 1e-12
    torch.testing.assert_close(estimate.loss, ours.loss(episodes.query), rtol=1e-12, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(one(episodes), estimate.loss.mean(), rtol=1e-12, atol=0)


def test_forward_mode_is_reverse_mode(form):
    batches, episodes = form
    options = {"support_batches": batches, "learn_init": False}
    estimates = [
        sine_learner(inner.LearnedRate(inner.SGD(0.01)), estimator=each, **options).estimate(
            episodes
        )
        for each in (outer.Unrolled(), outer.ForwardMode())
    ]
    assert relative_difference(estimates[0].gradient.rule, estimates[1].gradient.rule) < 1e-10


@pytest.mark.filterwarnings("ignore:.*inner_gradient")
def test_implicit_takes_the_curvature_of_the_examples_of_all_steps(form):
    batches, episodes = form
    support = rows_of(HELD_ONCE) if isinstance(batches, GivenBatches) else HELD_ONCE
    whole = batches.examples(episodes.support, axis=1)
    assert whole.x.shape == (TASKS, STEPS * SIZE if support.x.dim() == 4 else HELD, 1)
    still = [
        sine_learner(
            inner.SGD(1e-14), support_batches=each, estimator=outer.Implicit(5.0, outer.Direct())
        ).estimate(Episode(data, episodes.query))
        for each, data in ((batches, episodes.support), (None, whole))
    ]
    assert relative_difference(still[0].gradient, still[1].gradient) < 1e-9


def test_replicas(form):
    batches, episodes = form
    doubled = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
    replicas = outer.Replicas([sine_learner(support_batches=batches) for _ in range(2)])
    gradient = replicas.estimate(doubled).gradient.init
    expected, _ = by_hand()
    for name, grad in gradient.items():
        assert relative_difference(grad, torch.stack([expected[name]] * 2)) < 1e-12


def test_the_pure_function_of_one_task(form):
    batches, episodes = form
    one = sine_learner(support_batches=batches, batching="loop")
    problem = one.problem
    losses = problem.support_loss, problem.query_loss
    gradient = outer.meta_gradient(*losses, problem.rule, outer.Unrolled(), STEPS)
    each = [
        gradient(tree_detach(one.meta), task(episodes, index), key).gradient.init
        for index, key in enumerate(keys())
    ]
    mean = {name: sum(grads[name] for grads in each) / TASKS for name in each[0]}
    assert relative_difference(mean, by_hand()[0]) < 1e-12


class Unknown(nn.Module):
    """A model whose layers are not known, so that it is vmapped."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x)


def test_images_at_once_and_by_vmap():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TASKS, STEPS, 4, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.arange(4).remainder(3).expand(TASKS, STEPS, 4)
    estimates = []
    for wrap in (nn.Sequential, Unknown):
        torch.manual_seed(0)
        model = wrap(models.conv4(1, 3, num_filters=3, image_size=8, num_layers=2).double())
        one = learner(model, F.cross_entropy, num_steps=STEPS, support_batches=GivenBatches())
        estimates.append(one.estimate(Episode(Batch(x, y), Batch(x[:, 0], y[:, 0]))))
    torch.testing.assert_close(estimates[0].loss, estimates[1].loss, rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(*(each.gradient.init.values() for each in estimates), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def weighted_mse(output, target, weight):
    return (weight * (output - target).square().mean(-1)).sum() / weight.sum()


def test_weights_of_0_leave_examples_out(form):
    """A batch of one more example of weight 0, and the same without it."""
    batches, episodes = form
    extra = batch(TASKS, STEPS, 1)
    rows = rows_of(HELD_ONCE)
    longer = tree_map(lambda one, other: torch.cat([one, other], 2), rows, extra)
    weight = torch.ones(TASKS, STEPS, SIZE + 1).double()
    weight[..., -1] = 0
    built = [
        learner(models.mlp(1, [4], 1).double(), criterion, support_batches=each, num_steps=STEPS)
        for each, criterion in ((batches, F.mse_loss), (GivenBatches(), weighted_mse))
    ]
    built[1].load_state_dict(built[0].state_dict())
    plain = built[0].adapt(episodes.support).params
    ours = built[1].adapt(longer._replace(weight=weight)).params
    assert relative_difference(ours, plain) < 1e-12


def test_weights_of_a_data_set_go_with_its_examples():
    weight = torch.rand(HELD, generator=torch.Generator().manual_seed(0))
    support = Batch(Indexed(torch.arange(HELD), INDICES[0]), (), weight)
    for step in range(STEPS):
        seen = IndexedBatches().of_step(support, None, step)
        assert torch.equal(seen.x, INDICES[0, step])
        assert torch.equal(seen.weight, weight[INDICES[0, step]])


def test_a_data_set_that_tasks_share_is_not_copied():
    x = batch(HELD).x
    shared = Indexed(x.expand(TASKS, *x.shape), INDICES)
    estimate, copied = (
        sine_learner(support_batches=IndexedBatches()).estimate(
            Episode(Batch(data, data.data.sin()), batch(TASKS, 4)), keys()
        )
        for data in (shared, Indexed(shared.data.clone(), INDICES))
    )
    assert relative_difference(estimate.gradient, copied.gradient) == 0
    assert shared.data.untyped_storage().nbytes() == x.untyped_storage().nbytes()


def test_inputs_may_be_trees():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1).double()

        def forward(self, left, right):
            return self.layer(left) + right

    x, y, _ = rows_of(HELD_ONCE)
    one = learner(Sum(), num_steps=STEPS, support_batches=GivenBatches())
    query = batch(TASKS, 4)
    episodes = Episode(
        Batch({"left": x, "right": y}, y), Batch({"left": query.x, "right": query.y}, query.y)
    )
    one(episodes).backward()
    assert all(param.grad.isfinite().all() for param in one.parameters())


def test_adaptation_may_take_fewer_steps(form):
    batches, episodes = form
    one = sine_learner(support_batches=batches)
    first = rows_of(HELD_ONCE)
    first = tree_map(lambda leaf: leaf[:, :1], first)
    ours = one.adapt(episodes.support, 1)
    theirs = sine_learner(support_batches=GivenBatches(), num_steps=1).adapt(first)
    assert relative_difference(ours.params, theirs.params) < 1e-12
    assert evaluate(one, [episodes], num_tasks=TASKS, num_steps=0)["loss"].values.shape == (TASKS,)
    longer = sine_learner(support_batches=batches, num_steps=1)
    evaluate(longer, [episodes], num_tasks=TASKS, num_steps=STEPS)


def test_pickles(form):
    batches, episodes = form
    one = sine_learner(support_batches=batches)
    expected = one.estimate(episodes, keys()).loss
    assert torch.equal(pickle.loads(pickle.dumps(one)).estimate(episodes, keys()).loss, expected)


def test_losses_of_the_users_own_take_any_sets():
    """A support set of batches, of which the user's loss takes the mean."""

    def support_loss(params, shared, episode, step):
        return F.mse_loss(params["w"] * episode.support.x, episode.support.y)

    def query_loss(params, shared, episode):
        return F.mse_loss(params["w"] * episode.query.x, episode.query.y)

    model = nn.Module()
    model.w = nn.Parameter(torch.ones((), dtype=torch.float64))
    losses = {"support_loss": support_loss, "query_loss": query_loss}
    own = outer.MetaLearner(model, None, inner.SGD(0.01), num_steps=1, **losses)
    own(Episode(rows_of(HELD_ONCE), batch(TASKS, 4))).backward()
    assert model.w.grad != 0


def refused(support, batches=None, **options):
    return lambda: sine_learner(support_batches=batches or GivenBatches(), **options)(
        Episode(support, batch(TASKS, 4))
    )


def indexed(**changes):
    support = FORMS["indexed"][1]
    return support._replace(x=support.x._replace(**changes))


def normalised_by_support():
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)).double()
    one = learner(
        models.use_batch_statistics(model, "support"),
        num_steps=STEPS,
        support_batches=GivenBatches(),
    )
    y = rows_of(HELD_ONCE).y.expand(-1, -1, -1, 2)
    return one(
        Episode(rows_of(HELD_ONCE)._replace(y=y), Batch(torch.ones(TASKS, 2, 1).double(), y[:, 0]))
    )


BAD = {
    "other steps": (
        refused(rows_of(HELD_ONCE), num_steps=5),
        ValueError,
        "num_steps must be the 3 batches of the support set; got 5. "
        "Write num_steps=3, or data.windows(loader, num_steps=5), or leave out support_batches if "
        "all steps see the same examples.",
    ),
    "fewer steps in training": (
        refused(indexed(), IndexedBatches(), num_steps=2),
        ValueError,
        "num_steps must be the 3 batches of the support set; got 2. "
        "Write num_steps=3, or indices of 2 steps.",
    ),
    "more steps in adaptation": (
        lambda: sine_learner(support_batches=GivenBatches()).adapt(rows_of(HELD_ONCE), 4),
        ValueError,
        "num_steps must be the 3 batches of the support set; got 4",
    ),
    "no batch a step": (
        refused(batch(TASKS)),
        ValueError,
        "support tensors must be [num_tasks, num_steps, batch_size, ...], with one number of steps",
    ),
    "tensors of other steps": (
        refused(rows_of(HELD_ONCE)._replace(y=(torch.zeros(TASKS, 2, SIZE, 1),))),
        ValueError,
        "with one number of steps",
    ),
    "weights of steps": (
        refused(rows_of(HELD_ONCE)._replace(weight=torch.ones(TASKS, STEPS))),
        ValueError,
        "support tensors must be [num_tasks, num_steps, batch_size, ...]",
    ),
    "weights of values": (
        lambda: sine_learner()(
            Episode(*[batch(TASKS, 4)._replace(weight=torch.ones(TASKS, 4, 1))] * 2)
        ),
        ValueError,
        "weights must be of shape (3, 4), [num_tasks, num_examples]; "
        "got support.weight (3, 4, 1). Give support.weight one number an example.",
    ),
    "no indices": (
        refused(rows_of(HELD_ONCE), IndexedBatches()),
        TypeError,
        "support.x of IndexedBatches must be a types.Indexed; got <class 'torch.Tensor'>. "
        "Write Batch(types.Indexed(x, indices), y).",
    ),
    "indices of 32 bits": (
        refused(indexed(indices=INDICES.int()), IndexedBatches()),
        TypeError,
        "indices of IndexedBatches must be int64; got torch.int32. Write indices.long().",
    ),
    "indices of all steps": (
        refused(indexed(indices=INDICES.flatten(1)), IndexedBatches()),
        ValueError,
        "indices of IndexedBatches must be [num_tasks, num_steps, batch_size], at least one a "
        "step; got shape (3, 6). "
        "Of those that tasks share write indices.expand(num_tasks, *indices.shape).",
    ),
    "no indices in a step": (
        refused(indexed(indices=INDICES[..., :0]), IndexedBatches()),
        ValueError,
        "at least one a step; got shape (3, 3, 0)",
    ),
    "windows without being told": (
        lambda: sine_learner()(Episode(rows_of(HELD_ONCE), batch(TASKS, 4))),
        ValueError,
        "support and query sets must have examples of one rank; got (3, 3, 2, 1) and (3, 4, 1). "
        "Write support_batches=functional.GivenBatches()",
    ),
    "indices without being told": (
        lambda: sine_learner()(Episode(indexed(), batch(TASKS, 4))),
        ValueError,
        "support.x must be inputs of the model; got a types.Indexed. "
        "Write support_batches=functional.IndexedBatches().",
    ),
    "indices in an adaptation": (
        lambda: sine_learner().adapt(indexed()),
        ValueError,
        "Write support_batches=functional.IndexedBatches().",
    ),
    "indices of given batches": (
        refused(indexed()),
        ValueError,
        "Write support_batches=functional.IndexedBatches().",
    ),
    "targets of other examples": (
        refused(indexed()._replace(y=torch.zeros(TASKS, 4, 1)), IndexedBatches()),
        ValueError,
        "data of IndexedBatches must be [num_tasks, num_examples, ...]",
    ),
    "indices out of range": (
        refused(indexed(indices=INDICES + 1), IndexedBatches()),
        ValueError,
        "indices of IndexedBatches must be from 0 to 6; got from 1 to 7",
    ),
    "statistics of a support set": (
        normalised_by_support,
        ValueError,
        "a support set that is batches of steps must need no 'support' statistics",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
