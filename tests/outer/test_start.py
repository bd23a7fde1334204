"""Inner loops that start where a function of what is learned says: `Problem.start`."""

import pytest
import torch

from metalearn import inner, outer
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._over_tasks import How, choose, over_tasks, spread
from metalearn.types import Carry
from tests.cases import keys, relative_difference, sine_learner, task

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
