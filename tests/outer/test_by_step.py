"""Inner loops compiled step by step compute what an eager one does, in as few graphs."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn._tree import tree_map
from metalearn.outer import _compile, _pieces
from metalearn.outer._by_step import by_step
from metalearn.types import Episode, KeyedLoss
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
def graphs(monkeypatch, inner_steps_as_they_are):
    """Run captured graphs without inductor; return the list of all that are captured."""
    captured = []
    capture = _pieces.capture

    def noted(*args):
        captured.append(args)
        return capture(*args)

    monkeypatch.setattr(_pieces, "capture", noted)
    return captured


def assert_same(learner, num_tasks=3, episodes=None):
    eager = copy.deepcopy(learner)
    eager.set_batching(learner.batching, learner.chunk_size)
    episodes = episodes or sine_episodes(num_tasks)
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


LAST = inner.LearnedRate(inner.SGD(0.01), per="tensor", num_steps=2)
HISTORY = inner.Turtle(("grad", "grad_history", "step"), hidden=(3,), lr=0.01)


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"rule": inner.SGD(0.01)}, 4),
        ({"rule": inner.Adam(0.01)}, 4),
        ({"rule": EVERY_STEP}, 4),
        ({"rule": LAST}, 4),
        ({"rule": HISTORY}, 6),  # the first step of which is another one
        ({"rule": inner.SGD(0.01), "estimator": ESTIMATORS[2]}, 5),
        ({"rule": inner.SGD(0.01), "support_batches": 5}, 4),
        ({"rule": inner.SGD(0.01), "support_batches": functional.SampledBatches(2)}, 4),
        # the last batch of an epoch is smaller
        ({"rule": inner.SGD(0.01), "support_batches": functional.ShuffledBatches(2)}, 8),
    ],
    ids=str,
)
def test_more_steps_take_no_more_graphs(options, most, num_tasks, graphs):
    numbers = []
    for num_steps in (7, 14):
        graphs.clear()
        learner = sine_learner(num_steps=num_steps, compile="step", **options)
        assert_same(learner, num_tasks)
        numbers.append(len(graphs))
    assert numbers[0] == numbers[1] <= most


def test_statistics_of_every_step_take_no_more_graphs(graphs):
    numbers = []
    for num_steps in (3, 6):
        graphs.clear()
        norm = models.PerStepNorm(4, num_steps)
        model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), norm, nn.Linear(4, 1)).double()
        for rows in norm.parameters():
            nn.init.normal_(rows)
        rule = inner.SGD(0.01)
        learner = outer.MAML(model, F.mse_loss, rule, num_steps=num_steps, compile="step")
        assert_same(learner)
        numbers.append(len(graphs))
    assert numbers[0] == numbers[1] <= 4


class Decaying(inner.SGD):
    """A rule that computes with the number."""

    def advance(self, meta, grads, state, params, loss, step):
        rate = self.lr * 0.9**step
        return {name: param - rate * grads[name] for name, param in params.items()}, state


def test_a_rule_that_computes_with_the_number_has_a_graph_for_each(graphs):
    assert_same(sine_learner(Decaying(0.01), num_steps=4, compile="step"))
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


def test_batches_that_are_given_take_no_more_graphs(graphs):
    numbers = []
    for num_steps in (3, 6):
        graphs.clear()
        support, query = sine_episodes(k_shot=2 * num_steps)
        support = tree_map(lambda leaf, n=num_steps: leaf.unflatten(1, (n, 2)), support)
        learner = sine_learner(
            num_steps=num_steps, support_batches=functional.GivenBatches(), compile="step"
        )
        assert_same(learner, episodes=Episode(support, query))
        numbers.append(len(graphs))
    assert numbers[0] == numbers[1] <= 4


def test_losses_of_the_users_that_depend_on_keys_do_not_go_step_by_step():
    class Keyed(KeyedLoss):
        def of_task(self, key):
            return lambda params, shared, episode, step: params["0.weight"].square().sum() * key

    learner = sine_learner()
    assert by_step(learner.estimator, learner.problem, outer.Stepwise) is not None
    problem = learner.problem._replace(support_loss=Keyed())
    assert by_step(learner.estimator, problem, outer.Stepwise) is None


def test_a_model_that_draws_is_not_taken_twice():
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=3, compile="step")
    with pytest.warns(outer.NotCompiledWarning, match="draws must not be taken twice"):
        learner(sine_episodes())


def test_large_models_go_by_step_unless_told_otherwise(graphs, monkeypatch):
    monkeypatch.setattr(_compile, "MOST_LAYERS", 10)
    for how, goes in ((True, True), ("whole", False)):
        graphs.clear()
        learner = sine_learner(num_steps=3, compile=how)
        assert_same(learner)
        assert bool(graphs) == goes
    # what cannot go by step is compiled whole
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.0), nn.Linear(4, 1)).double()
    outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=9, compile=True)(sine_episodes())
