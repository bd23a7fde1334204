import math
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from metalearn import baselines, data, evaluate, fit, inner, models, outer
from metalearn.training import EarlyStopping
from tests.cases import sine_episodes, sine_learner

TASKS = data.Sinusoid(k_shot=5, num_query=5)


def sine():
    torch.manual_seed(0)
    return outer.MAML(models.mlp(1, [16], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)


def adam(learner, lr=1e-2):
    return torch.optim.Adam(learner.parameters(), lr=lr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_evaluation_mode_is_warned_of():
    learner = sine().eval()
    with pytest.warns(
        UserWarning, match=r"learner must be in training mode.* Call learner.train\(\) first"
    ):
        fit(learner, TASKS, adam(learner), 1, meta_batch_size=2, progress=False)


def test_learns_and_records():
    learner = sine()
    start = evaluate(learner, TASKS, num_tasks=200, generator=seeded(1))["loss"].mean
    history = fit(
        learner, TASKS, adam(learner), 150, meta_batch_size=8, progress=False, generator=seeded()
    )
    end = evaluate(learner, TASKS, num_tasks=200, generator=seeded(1))["loss"].mean
    assert end < 0.9 * start
    assert history.loss.shape == (150,)
    assert history.loss.isfinite().all()
    assert history.seconds > 0
    assert history.best_state is None
    assert history.best_iteration is None


def test_is_the_loop_one_would_write():
    ours, theirs = sine(), sine()
    fit(ours, TASKS, adam(ours), 5, meta_batch_size=4, progress=False, generator=seeded())
    optimizer, generator = adam(theirs), seeded()
    for _ in range(5):
        episodes = TASKS.sample(4, generator=generator)
        torch.randint(2**62, (4,), generator=generator)
        optimizer.zero_grad()
        theirs(episodes).backward()
        optimizer.step()
    for ours_param, theirs_param in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_param, theirs_param)


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS, torch.optim.RMSprop]
)
def test_any_optimizer(kind):
    learner = sine()
    before = [param.detach().clone() for param in learner.parameters()]
    fit(learner, TASKS, kind(learner.parameters(), lr=1e-3), 2, meta_batch_size=4, progress=False)
    assert all(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


def test_schedulers():
    learner = sine()
    optimizer = adam(learner)
    schedule = CosineAnnealingLR(optimizer, T_max=10)
    fit(learner, TASKS, optimizer, 10, meta_batch_size=2, scheduler=schedule, progress=False)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)

    optimizer = adam(learner)
    schedule = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scores = iter([1.0, 2.0, 3.0])
    options = {"validate": lambda _: next(scores), "validate_every": 1, "progress": False}
    fit(learner, TASKS, optimizer, 3, meta_batch_size=2, scheduler=schedule, **options)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 4)


def test_a_plateau_counts_only_replicas_that_have_a_score():
    replicas = outer.Replicas([sine() for _ in range(2)])
    optimizer = adam(replicas)
    schedule = ReduceLROnPlateau(optimizer, patience=0)
    scores = iter([2.0, math.nan, 1.0, math.nan])
    options = {"validate": lambda _: next(scores), "validate_every": 1, "progress": False}
    fit(replicas, TASKS, optimizer, 2, meta_batch_size=2, scheduler=schedule, **options)
    assert schedule.best == 1.0
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_keeps_the_best_state():
    learner, seen = sine(), []
    scores = iter([3.0, 1.0, math.nan, 2.0])

    def validate(learner):
        seen.append({name: tensor.clone() for name, tensor in learner.state_dict().items()})
        assert not learner.training
        return next(scores)

    options = {"validate": validate, "validate_every": 2, "progress": False}
    history = fit(learner, TASKS, adam(learner), 7, meta_batch_size=2, **options)
    assert list(history.scores) == [2, 4, 6, 7]
    assert history.best_iteration == 4
    assert learner.training
    for name, tensor in seen[1].items():
        assert torch.equal(history.best_state[name], tensor)
    learner.load_state_dict(history.best_state)


def test_keeps_several_best_states():
    learner, seen = sine(), []
    scores = [3.0, 1.0, math.nan, 1.0, math.inf, 2.0, 0.5]

    def validate(learner):
        seen.append({name: tensor.clone() for name, tensor in learner.state_dict().items()})
        return scores[len(seen) - 1]

    options = {"validate": validate, "validate_every": 1, "keep_best": 3, "progress": False}
    history = fit(learner, TASKS, adam(learner), 7, meta_batch_size=2, **options)
    assert len(history.best_states) == 3
    for kept, expected in zip(history.best_states, [seen[6], seen[1], seen[3]], strict=True):
        assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert history.best_state is history.best_states[0]


def test_no_finite_score_has_no_best():
    learner = sine()
    options = {
        "validate": lambda _: math.inf,
        "validate_every": 1,
        "keep_best": 2,
        "progress": False,
    }
    history = fit(learner, TASKS, adam(learner), 2, meta_batch_size=2, **options)
    assert (history.best_state, history.best_states, history.best_iteration) == (None, [], None)


def test_validates_on_the_same_tasks_each_time():
    learner = sine()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-30)
    options = {
        "validate": TASKS,
        "validate_every": 1,
        "num_validation_tasks": 20,
        "progress": False,
    }
    history = fit(learner, TASKS, optimizer, 3, meta_batch_size=2, **options)
    assert len(set(history.scores.values())) == 1


@pytest.mark.parametrize("num_steps", [0, 7])
def test_validates_after_another_number_of_steps_than_in_training(num_steps):
    learner = sine()
    options = {
        "validate": TASKS,
        "num_validation_tasks": 20,
        "num_validation_steps": num_steps,
        "progress": False,
    }
    history = fit(learner, TASKS, adam(learner), 2, meta_batch_size=2, **options)
    expected = evaluate(learner, TASKS, num_tasks=20, num_steps=num_steps, generator=seeded())
    assert history.scores == {2: expected["loss"].mean}
    assert (
        expected["loss"].mean
        != evaluate(learner, TASKS, num_tasks=20, generator=seeded())["loss"].mean
    )


def test_iterables_start_anew():
    learner = sine_learner()
    history = fit(learner, [sine_episodes(), sine_episodes(2)], adam(learner), 5, progress=False)
    assert len(history.loss) == 5
    assert len(fit(learner, sine_episodes(), adam(learner), 2, progress=False).loss) == 2


def test_a_diverged_task_shows_in_the_history():
    episodes = sine_episodes()
    episodes.query.y[0, 0] = math.nan
    learner = sine_learner()
    with pytest.warns(
        RuntimeWarning, match="1 of 2 meta-losses were not finite, the first at iteration 2"
    ):
        history = fit(learner, [sine_episodes(), episodes], adam(learner), 2, progress=False)
    assert history.loss.isnan().tolist() == [False, True]


def test_gradient_norm_is_bounded():
    learner = sine()
    before = [param.detach().clone() for param in learner.parameters()]
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    fit(learner, TASKS, optimizer, 1, meta_batch_size=4, max_grad_norm=1e-3, progress=False)
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(before, learner.parameters(), strict=True)]
    )
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_progress_goes_to_standard_error(capsys):
    learner = sine()
    fit(learner, TASKS, adam(learner), 3, meta_batch_size=2, validate=lambda _: 1.5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err
    assert "loss=" in captured.err
    assert "score=1.5" in captured.err


def test_without_progress_nothing_asks_for_widgets(monkeypatch):
    # what warns in a notebook without ipywidgets
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    learner = sine()
    fit(learner, TASKS, adam(learner), 1, meta_batch_size=2, progress=False)


BAD = [
    ({"num_iterations": 0}, ValueError, "num_iterations must be at least 1"),
    ({"meta_batch_size": None}, TypeError, "Write meta_batch_size=4, say."),
    ({"meta_batch_size": 0}, ValueError, "meta_batch_size must be at least 1"),
    (
        {"batches": [sine_episodes()]},
        ValueError,
        "meta_batch_size must be the 3 tasks of a batch; got 2",
    ),
    ({"batches": 3}, TypeError, "batches must be a task distribution or an iterable"),
    ({"batches": [], "meta_batch_size": None}, ValueError, "last for all iterations"),
    ({"optimizer": "adam"}, TypeError, "torch.optim.Adam(learner.parameters(), lr=1e-3)"),
    (
        {"optimizer": torch.optim.Adam(nn.Linear(1, 1).parameters())},
        ValueError,
        "hold all of the learner's parameters",
    ),
    (
        {"scheduler": CosineAnnealingLR},
        TypeError,
        "scheduler must be one of torch.optim.lr_scheduler",
    ),
    (
        {"validate": [sine_episodes()]},
        TypeError,
        "validate must be a task distribution or a function",
    ),
    ({"batches": [(1, 2)], "meta_batch_size": None}, TypeError, "an Episode of two Batches"),
    ({"max_grad_norm": -1.0}, ValueError, "max_grad_norm must be positive"),
    ({"validate_every": 0}, ValueError, "validate_every must be at least 1"),
    ({"validate": data.Sinusoid}, TypeError, "validate must be"),
    (
        {"validate": TASKS, "num_validation_steps": -1},
        ValueError,
        "num_validation_steps must be at least 0; got -1",
    ),
    (
        {"validate": TASKS, "num_validation_steps": 2.5},
        TypeError,
        "num_validation_steps must be an int",
    ),
    (
        {"num_validation_steps": 10},
        ValueError,
        (
            "num_validation_steps must go with a task distribution to validate on; got "
            "validate=None. Pass validate=tasks."
        ),
    ),
    (
        {"validate": len, "num_validation_steps": 10},
        ValueError,
        "Write evaluate(learner, tasks, num_tasks=600, num_steps=10) in the function.",
    ),
    ({"callbacks": [EarlyStopping]}, TypeError, "callbacks must be a list of functions"),
    ({"validate": 7}, TypeError, "validate must be"),
    ({"keep_best": 0}, ValueError, "keep_best must be at least 1; got 0. Write keep_best=5, say."),
    (
        {"learner": outer.Replicas([sine(), sine()]), "keep_best": 2},
        ValueError,
        "keep_best of replicas must be 1",
    ),
    ({"learner": nn.Linear(1, 1)}, TypeError, "learner must be a MetaLearner"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    learner = sine()
    arguments = {
        "learner": learner,
        "batches": TASKS,
        "optimizer": adam(learner),
        "num_iterations": 1,
        "meta_batch_size": 2,
        "progress": False,
    } | change
    with pytest.raises(error) as raised:
        fit(**arguments)
    assert message in str(raised.value)


def test_an_optimizer_of_the_model_alone_would_leave_the_rule_unlearned():
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.MetaSGD(0.01), num_steps=1)
    optimizer = torch.optim.Adam(learner.model.parameters())
    with pytest.raises(ValueError, match="got one without .'rule.rate.0.weight'"):
        fit(learner, TASKS, optimizer, 1, meta_batch_size=2)


def test_batches_of_the_size_that_is_said():
    learner = sine()
    history = fit(learner, TASKS.batches(4), adam(learner), 2, meta_batch_size=4, progress=False)
    assert len(history.loss) == 2


def test_a_compiled_learner():
    learner = sine()
    before = [param.detach().clone() for param in learner.parameters()]
    wrapped = torch.compile(learner, backend="eager")
    options = {
        "meta_batch_size": 2,
        "validate": TASKS,
        "num_validation_tasks": 4,
        "progress": False,
    }
    history = fit(wrapped, TASKS, adam(learner), 2, **options)
    assert list(history.best_state) == list(learner.state_dict())
    assert all(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))


def test_plateau_needs_a_score():
    learner = sine()
    optimizer = adam(learner)
    with pytest.raises(ValueError, match="Pass validate=tasks too"):
        fit(learner, TASKS, optimizer, 1, meta_batch_size=2, scheduler=ReduceLROnPlateau(optimizer))


def test_a_learner_with_nothing_to_learn():
    learner = baselines.TrainFromScratch(models.mlp(1, [4], 1), F.mse_loss, num_steps=1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(
        ValueError,
        match="learner must have something to learn; .*There is nothing to fit: evaluate",
    ):
        fit(learner, data.Sinusoid(2, 2), optimizer, 1, meta_batch_size=1, progress=False)


def test_a_validation_that_is_no_number():
    learner = sine_learner(num_steps=1)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="validate must return a number; got None"):
        fit(learner, sine_episodes(), optimizer, 1, validate=lambda learner: None, progress=False)


def test_validation_leaves_every_module_in_its_mode():
    model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1)
    model[1].eval()
    optimizer = torch.optim.Adam(learner.parameters())
    fit(
        learner,
        TASKS,
        optimizer,
        1,
        meta_batch_size=2,
        validate=TASKS,
        num_validation_tasks=2,
        progress=False,
    )
    assert [model.training, model[1].training] == [True, False]


def test_a_scheduler_of_another_optimizer():
    learner = sine_learner()
    optimizer, other = (torch.optim.SGD(learner.parameters(), lr=0.1) for _ in range(2))
    with pytest.raises(
        ValueError, match="scheduler must be the optimizer's; got one of another optimizer"
    ):
        fit(learner, TASKS, optimizer, 1, scheduler=CosineAnnealingLR(other, 1))
