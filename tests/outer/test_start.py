"""Inner loops that start where a function of what is learned says: `Problem.start`."""

import re

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

from metalearn import baselines, inner, outer
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._over_tasks import How, choose, over_tasks, spread
from metalearn.types import Carry
from tests.cases import EXACT_WAYS, keys, relative_difference, sine_learner, task

UNROLLED = outer.Unrolled()
EXACT = [outer.Unrolled(), outer.Stepwise(), outer.Stepwise(segment=2), outer.ForwardMode()]


def moved(meta, support, key):
    """Return a start that depends on all that it is given."""
    noise = (key % 7).to(support.y.dtype) / 70
    of_shared = torch.stack([leaf.sum() for leaf in meta.shared.values()]).sum()
    shift = meta.rule["rate"] * support.y.mean() + noise * of_shared
    return {name: (1 + noise) * param + shift for name, param in meta.init.items()}


def problem_and_meta():
    learner = sine_learner(inner.LearnedRate(inner.SGD(0.01)), fast=["0", "4"])
    return learner.problem._replace(start=moved), tree_detach(learner.meta)


def by_hand(problem, meta, episode, key):
    """Differentiate the query loss after steps of plain autograd."""
    leaves = tree_map(lambda leaf: leaf.clone().requires_grad_(), meta)
    params = moved(leaves, episode.support, key)
    for step in range(problem.num_steps):
        loss = problem.support_loss(params, leaves.shared, episode, step)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        rate = leaves.rule["rate"]
        params = {n: p - rate * g for (n, p), g in zip(params.items(), grads, strict=True)}
    loss = problem.query_loss(params, leaves.shared, episode)
    return loss.detach(), torch.autograd.grad(loss, tree_leaves(leaves))


@pytest.mark.parametrize("estimator", EXACT, ids=str)
def test_exact_gradients_reach_what_the_start_depends_on(estimator, episodes):
    problem, meta = problem_and_meta()
    loss, gradient = by_hand(problem, meta, task(episodes), keys()[0])
    estimate = estimator(problem, meta, task(episodes), keys()[0], Carry())
    torch.testing.assert_close(estimate.loss, loss, rtol=1e-12, atol=0)
    assert relative_difference(tree_leaves(estimate.gradient), list(gradient)) < 1e-9


@pytest.mark.parametrize(
    "estimator", [*EXACT, outer.Implicit(2.0), outer.ParameterDifference()], ids=str
)
def test_all_ways_of_running_agree(estimator, episodes):
    problem, meta = problem_and_meta()
    results = []
    for how in (choose(estimator, problem, "vmap"), How("vmap"), How("loop")):
        metas = spread(meta, 3) if how.own else meta
        per_task = episodes, keys(), Carry()
        each = over_tasks(estimator, problem, metas, keys(), per_task, how)
        results.append((each.loss, each.gradient))
    assert relative_difference(results[0], results[1]) < 1e-9
    assert relative_difference(results[0], results[2]) < 1e-9


def test_an_implicit_gradient_pulls_towards_the_start(episodes):
    """With hardly any pull of the support loss the solution is the start itself."""
    problem, meta = problem_and_meta()
    estimator, one = outer.Implicit(1e6, outer.Direct()), task(episodes)
    problem = problem._replace(rule=inner.SGD(1e-9))
    meta_of_start = meta._replace(rule={"rate": meta.rule["rate"]})
    estimate = estimator(problem, meta_of_start, one, keys()[0], Carry())
    leaves = tree_map(lambda leaf: leaf.clone().requires_grad_(), meta_of_start)
    loss = problem.query_loss(moved(leaves, one.support, keys()[0]), leaves.shared, one)
    expected = torch.autograd.grad(loss, tree_leaves(leaves))
    assert relative_difference(tree_leaves(estimate.gradient), list(expected)) < 1e-4


@pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.ForwardMode()], ids=str)
def test_estimates_say_where_they_ended(estimator, episodes):
    learner = sine_learner(inner.Momentum(0.01), fast=["4"], estimator=estimator)
    meta, one = tree_detach(learner.meta), task(episodes)
    estimate = estimator(learner.problem, meta, one, keys()[0], Carry())
    adapted = inner.adapt(learner.problem, meta, one, keys()[0])
    assert relative_difference(estimate.params, adapted.params) < 1e-12
    assert relative_difference(estimate.state, adapted.state) < 1e-12
    assert not any(leaf.requires_grad for leaf in estimate.params.values())


class MeanStart(nn.Module):
    """A start that is solved for: the mean target, scaled by what is learned."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7).double())

    def forward(self, meta, support, key):
        of_targets = self.scale * support.y.mean()
        return {name: param * of_targets for name, param in meta.init.items()}


def of_no_step(estimator=UNROLLED, **options):
    return sine_learner(num_steps=0, start=MeanStart(), estimator=estimator, fast="4", **options)


def test_a_start_alone_is_differentiated(episodes):
    """Without an inner step the meta-gradient is that of the query loss at the start."""
    learner = of_no_step()
    named = dict(learner.named_parameters())
    losses = []
    for index in range(3):
        one = task(episodes, index)
        params = {f"4.{name}": learner.model[4].get_parameter(name) for name in ("weight", "bias")}
        begun = {name: learner.start.scale * one.support.y.mean() * p for name, p in params.items()}
        losses.append(F.mse_loss(functional_call(learner.model, begun, one.query.x), one.query.y))
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(loss, list(named.values()))
    others = outer.Unrolled(order=1, truncate=0), outer.Joint(), outer.SkipDiverged(UNROLLED)
    for estimator in [*EXACT, *others]:
        learner.estimator = estimator
        learner.zero_grad()
        found = learner(episodes)
        found.backward()
        torch.testing.assert_close(found.detach(), loss.detach(), rtol=1e-12, atol=0)
        grads = [param.grad for param in named.values()]
        assert relative_difference(grads, list(expected)) < 1e-9


@pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
def test_a_start_alone_runs_in_all_ways(options, episodes):
    expected = of_no_step().estimate(episodes, keys())
    found = of_no_step(**options).estimate(episodes, keys())
    assert relative_difference(found.gradient, expected.gradient) < 1e-9
    assert relative_difference(found.loss, expected.loss) < 1e-12


def test_estimates_in_expectation_take_no_step_either(episodes):
    exact = of_no_step().estimate(episodes, keys()).loss
    estimators = outer.ForwardGradient(2), outer.EvolutionStrategies(4, 1e-3)
    for estimator in estimators:
        estimate = of_no_step(estimator).estimate(episodes, keys())
        torch.testing.assert_close(estimate.loss, exact, rtol=1e-12, atol=0)
        assert estimate.gradient.shared["start.scale"] != 0


@pytest.mark.parametrize("compile", ["whole", "step"])
def test_a_start_alone_is_compiled(compile, episodes):
    expected = of_no_step().estimate(episodes, keys())
    learner = of_no_step()
    learner.set_batching(compile=compile)
    found = learner.estimate(episodes, keys())
    assert relative_difference(found.gradient, expected.gradient) < 1e-9


def test_steps_may_be_added_at_test_time(episodes):
    learner = of_no_step()
    none, two = (learner.adapt(episodes.support, n) for n in (None, 2))
    assert none.age.tolist() == [0] * 3
    scales = 0.7 * episodes.support.y.mean((1, 2))
    bias = learner.model[4].bias.detach()
    torch.testing.assert_close(none.params["4.bias"], scales[:, None] * bias, rtol=1e-6, atol=0)
    assert relative_difference(two.params, none.params) > 1e-3


NEEDS_STEPS = [
    outer.Implicit(2.0),
    outer.Penalty(10.0),
    outer.OneStep(),
    outer.ParameterDifference(),
    outer.OnlineForwardMode(),
    outer.Continued(UNROLLED, 6),
    outer.PersistentES(2, 0.1, 6),
    outer.Unrolled(multi_step=outer.MultiStep()),
    baselines.Transfer(),
]


@pytest.mark.parametrize("estimator", NEEDS_STEPS, ids=str)
def test_estimators_of_inner_steps_are_refused_without_one(estimator):
    message = re.escape(f"num_steps under {estimator} must be at least 1; got 0. Write estimator=")
    with pytest.raises(ValueError, match=message):
        of_no_step(estimator)


def test_a_rule_that_nothing_could_learn_is_refused():
    with pytest.raises(ValueError, match="rule of no inner step must learn nothing"):
        of_no_step(rule=inner.LearnedRate(inner.SGD(0.1)))


def test_no_step_needs_a_start():
    with pytest.raises(ValueError, match="num_steps must be at least 1; got 0. Write num_steps=5"):
        sine_learner(num_steps=0)


def test_what_no_start_uses_is_refused(episodes):
    learner = sine_learner(
        num_steps=0, fast="4", start=lambda meta, *_: tree_map(torch.zeros_like, meta.init)
    )
    with pytest.raises(ValueError, match="learned parameters must get a gradient; got none for"):
        learner(episodes)
