"""Every estimator through the contract suite, and against one another on rules that draw from their
key."""

from functools import partial

import pytest
import torch

from metalearn import inner, outer, testing
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner

RULES = [inner.SGD(0.01), inner.MetaSGD(0.01), RandomMask(0.01)]

ESTIMATORS = [
    (outer.Unrolled(), 2),
    (outer.Unrolled(order=1), 1),
    (outer.Unrolled(truncate=3), 2),
    (outer.Unrolled(truncate=1), None),
    (outer.Stepwise(), 2),
    (outer.Stepwise(order=1), 1),
    (outer.Stepwise(truncate=1), None),
    (outer.Stepwise(truncate=0), None),
    (outer.ParameterDifference(), None),
    (outer.ParameterDifference(keep_state=True), None),
    (outer.Implicit(5.0, outer.CG(3)), None),
    (outer.Implicit(5.0, outer.Neumann(3)), None),
    (outer.Implicit(5.0, outer.Direct()), None),
    (outer.Implicit(5.0, outer.CG(3), epsilon=0.01), None),
    (outer.Implicit(5.0, outer.Neumann(3), warm_start=True), None),
    (outer.Implicit(0.0, outer.CG(3)), None),
    (outer.OneStep(), None),
    (outer.Joint(), None),
    (outer.Penalty(10.0), None),
    (outer.Penalty(10.0, warm_start=True), None),
    (outer.ForwardMode(), 2),
    (outer.ForwardGradient(2), None),
    (outer.Unrolled(multi_step=outer.MultiStep(10)), None),
    (outer.Stepwise(multi_step=outer.MultiStep()), None),
    (outer.EvolutionStrategies(4), None),
    (outer.EvolutionStrategies(4, inner=True), None),
    (outer.ClipPerTask(outer.Unrolled(), value=1e3), 2),
    (outer.ClipPerTask(outer.Stepwise(), value=1e-2), None),
    (outer.SkipDiverged(outer.Unrolled()), 2),
    (outer.Continued(outer.Unrolled(), horizon=12), 2),
    (outer.Continued(outer.Stepwise(order=1), horizon=12), 1),
    (outer.Continued(outer.ForwardGradient(2), horizon=12), None),
    (outer.Continued(outer.Joint(), horizon=12, staggered=False), None),
    (outer.PersistentES(4, 0.01, horizon=12), None),
    (outer.Continued(outer.Implicit(5.0, outer.CG(1), warm_start=True)), None),
    (outer.Continued(outer.Penalty(10.0, warm_start=True)), None),
]


@pytest.mark.filterwarnings("ignore:.*at its first call")  # three steps solve nothing
@pytest.mark.parametrize(("estimator", "order"), ESTIMATORS, ids=str)
def test_contract(estimator, order):
    slow = isinstance(estimator, outer.EvolutionStrategies | outer.PersistentES)
    testing.check_meta_gradient(estimator, order=order, compile=not slow)


@pytest.mark.inductor
@pytest.mark.parametrize(
    "estimator",
    [
        outer.EvolutionStrategies(4),
        outer.EvolutionStrategies(4, inner=True),
        outer.PersistentES(4, 0.01, horizon=12),
    ],
    ids=str,
)
def test_evolution_strategies_compiled(estimator):
    testing.check_meta_gradient(estimator, order=None)


@pytest.mark.parametrize("fast", ["*", ["2", "4.bias"]], ids=str)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("rule", "truncate"),
    [(rule, truncate) for rule in RULES[:2] for truncate in (None, 1, 2, 9)]
    # a mask lives in the state, which truncation cuts off
    + [(inner.SGD(0.01), 0), (RULES[2], None), (RULES[2], 9)],
    ids=str,
)
def test_stepwise_equals_unrolled(rule, fast, order, truncate, episodes):
    estimates = [
        sine_learner(rule, fast=fast, estimator=kind(order, truncate)).estimate(episodes, keys())
        for kind in (outer.Unrolled, outer.Stepwise)
    ]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) < 1e-9
    assert torch.equal(estimates[0].loss, estimates[1].loss)


@pytest.mark.parametrize("kind", [outer.Unrolled, outer.Stepwise])
def test_truncated_to_nothing_is_first_order_maml(kind, episodes):
    truncated = sine_learner(estimator=kind(truncate=0)).estimate(episodes, keys())
    first_order = sine_learner(estimator=outer.Unrolled(order=1)).estimate(episodes, keys())
    assert relative_difference(truncated.gradient.init, first_order.gradient.init) < 1e-12


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_keys_decide_all_randomness(rule, episodes):
    learner = sine_learner(rule)
    one, two = (learner.estimate(episodes, keys()).loss for _ in range(2))
    other = learner.estimate(episodes, keys() + 1).loss
    assert torch.equal(one, two)
    assert torch.equal(one, other) == (not isinstance(rule, RandomMask))


@pytest.mark.parametrize("kind", [outer.Unrolled, outer.Stepwise])
@pytest.mark.parametrize("order", [0, 3, "2"])
def test_refuses_orders(kind, order):
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        kind(order=order)


@pytest.mark.parametrize("kind", [outer.Unrolled, outer.Stepwise])
def test_refuses_negative_truncation(kind):
    with pytest.raises(ValueError, match="truncate must be at least 0; got -1"):
        kind(truncate=-1)


def test_stepwise_needs_less_memory():
    """A further step takes one copy of the tasks' parameters, and not the model's activations."""
    many, peaks = sine_episodes(num_tasks=8, k_shot=64), {}
    for kind in (outer.Unrolled, outer.Stepwise):
        for num_steps in (10, 30):
            learner = sine_learner(num_steps=num_steps, estimator=kind())
            learner.estimate(many)
            peaks[kind, num_steps] = testing.peak_live_bytes(partial(learner.estimate, many))
    parameters = 8 * sum(
        param.numel() * param.element_size() for param in learner.model.parameters()
    )
    growth = {
        kind: (peaks[kind, 30] - peaks[kind, 10]) / 20 for kind in (outer.Unrolled, outer.Stepwise)
    }
    assert growth[outer.Stepwise] < 1.02 * parameters + 1024
    assert growth[outer.Stepwise] < growth[outer.Unrolled] / 5
