"""Inner loops compiled step by step compute what an eager one does, in as few graphs."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn.outer import _by_step, _compile
from metalearn.outer._step_number import StepNumber
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner

EVERY_STEP = inner.LearnedRate(inner.SGD(0.01), per="parameter", num_steps=4)
RULES = [inner.SGD(0.01), inner.MetaSGD(0.01), RandomMask(0.01), inner.LSTM(), EVERY_STEP]
ESTIMATORS = [
    outer.Unrolled(),
    outer.Unrolled(order=1),
    outer.Unrolled(multi_step=outer.MultiStep(3)),
    outer.Stepwise(segment=2),
    outer.SkipDiverged(outer.ClipPerTask(outer.Unrolled(), 10.0)),
]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Run captured graphs without inductor; return the list of all that are captured."""
    captured = []
    made, capture = _compile.SteppedStep, _by_step.capture

    def noted(*args):
        captured.append(args)
        return capture(*args)

    monkeypatch.setattr(_by_step, "capture", noted)
    monkeypatch.setattr(
        _compile, "SteppedStep", lambda function, _, args: made(function, None, args)
    )
    return captured


def assert_same(learner, num_tasks=3):
    eager = copy.deepcopy(learner)
    eager.set_batching(learner.batching, learner.chunk_size)
    episodes = sine_episodes(num_tasks)
    for _ in range(2):
        got = learner.estimate(episodes, keys(num_tasks))
        expected = eager.estimate(episodes, keys(num_tasks))
        assert relative_difference(got[:3], expected[:3]) < 1e-12
        learner(episodes, keys=keys(num_tasks)), eager(episodes, keys=keys(num_tasks))


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_equals_eager(rule, estimator, num_tasks):
    learner = sine_learner(rule, estimator=estimator, num_steps=4, compile="step")
    assert_same(learner, num_tasks)


def test_truncated():
    learner = sine_learner(num_steps=4, estimator=outer.Unrolled(truncate=2), compile="step")
    assert_same(learner)


@pytest.mark.parametrize("options", [{"chunk_size": 2}, {"batching": "loop"}], ids=str)
def test_in_parts(options):
    assert_same(sine_learner(num_steps=3, compile="step", **options))


def test_replicas():
    def replicas(**options):
        learners = []
        for seed in range(2):
            torch.manual_seed(seed)
            model = models.mlp(1, [4], 1).double()
            learners.append(outer.MAML(model, F.mse_loss, RULES[1], num_steps=3, **options))
        return outer.Replicas(learners)

    got, expected = (
        each.estimate(sine_episodes(4), keys(4)) for each in (replicas(compile="step"), replicas())
    )
    assert relative_difference(got[:2], expected[:2]) < 1e-12


def test_more_steps_take_no_more_graphs(graphs):
    numbers = []
    for num_steps in (3, 6):
        graphs.clear()
        sine_learner(num_steps=num_steps, compile="step").estimate(sine_episodes(), keys())
        numbers.append(len(graphs))
    assert numbers[0] == numbers[1] <= 5


def test_a_rule_that_asks_for_the_number_has_a_graph_for_each(graphs):
    learner = sine_learner(EVERY_STEP, num_steps=4, compile="step")
    learner.estimate(sine_episodes(), keys())
    assert len(graphs) > 8


def test_constants_are_read_when_it_runs():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = models.mlp(1, [4], 1).double()
            self.register_buffer("scale", torch.ones(1).double())

        def forward(self, x):
            return self.body(x) * self.scale

    learner = outer.MAML(Scaled(), F.mse_loss, inner.SGD(0.01), num_steps=3, compile="step")
    assert_same(learner)
    learner.model.scale.mul_(3)
    assert_same(learner)
    learner.model.scale = torch.full((1,), 0.3).double()
    assert_same(learner)


def test_what_does_not_go_step_by_step_says_so():
    model = models.mlp(1, [4], 1).double()
    learner = outer.IMAML(model, F.mse_loss, inner.SGD(0.01), num_steps=3, strength=2.0)
    learner.set_batching(compile="step")
    with pytest.warns(outer.NotCompiledWarning, match="does not go step by step"):
        learner(sine_episodes())


def test_a_model_that_draws_is_not_taken_twice():
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=3, compile="step")
    with pytest.warns(outer.NotCompiledWarning, match="draws must not be taken twice"):
        learner(sine_episodes())


def test_large_models_go_by_step_unless_told_otherwise(graphs, monkeypatch):
    monkeypatch.setattr(_compile, "MOST_LAYERS", 10)
    for how, by_step in ((True, True), ("whole", False)):
        graphs.clear()
        learner = sine_learner(num_steps=3, compile=how)
        assert_same(learner)
        assert bool(graphs) == by_step
    # what cannot go by step is compiled whole
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.0), nn.Linear(4, 1)).double()
    outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=9, compile=True)(sine_episodes())


@pytest.mark.parametrize(
    "ask",
    [
        lambda step: step == 0,
        lambda step: step % 2,
        lambda step: [1, 2][step],
        lambda step: bool(step),
        lambda step: f"{step}",
        lambda step: {1: 2}.get(step),
        lambda step: min(step, 3),
        lambda step: torch.arange(3)[step],
        lambda step: torch.arange(3) * step,
        lambda step: step.bit_length(),
        lambda step: -step,
        lambda step: float(step),
    ],
)
def test_a_number_knows_who_asks(ask):
    step = StepNumber(1)
    assert not step.is_used
    try:
        assert ask(step) is not None or True
    except TypeError:  # PyTorch wants an int: the step is captured again with one
        return
    assert step.is_used
