"""Joint training: steps of the inner and of the outer problem at once, against loops by hand."""

from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, fit, inner, models, outer
from metalearn._tree import tree_detach, tree_map
from metalearn.types import Carry, Problem
from tests.cases import keys, relative_difference, sine_episodes, sine_learner, task
from tests.outer.ridge import EPISODE, META, on_query, ridge

RATE, OUTER_RATE, STEPS = 0.1, 0.05, 4


def classic():
    """Return Franceschi et al.'s joint training of a representation and heads that start at 0."""
    torch.manual_seed(0)
    model, rule = models.mlp(1, [6], 1).double(), inner.SGD(RATE)
    estimator = outer.Continued(outer.Joint(), horizon=STEPS, staggered=False)
    return outer.HyperRepresentation(model, F.mse_loss, rule, num_steps=1, estimator=estimator)


def repeated(num_batches):
    """Yield batches of tasks whose query sets are their support sets, each for four steps."""
    for seed in range(num_batches):
        episodes = sine_episodes()
        x = episodes.support.x + seed
        support = episodes.support._replace(x=x)
        for _ in range(STEPS):
            yield episodes._replace(support=support, query=support)


def by_hand(model, batches):
    """Step on the representation and all heads at once, and return the heads and the last loss."""
    body = model[:-1]
    for number, episodes in enumerate(batches):
        x, y = episodes.support.x, episodes.support.y
        if number % STEPS == 0:
            weight = torch.zeros(len(x), 1, 6, dtype=x.dtype)
            bias = torch.zeros(len(x), 1, dtype=x.dtype)
        heads = [head.detach().requires_grad_() for head in (weight, bias)]
        outputs = body(x) @ heads[0].mT + heads[1][:, None]
        losses = (outputs - y).square().mean((1, 2))
        params = list(body.parameters())
        of_heads = torch.autograd.grad(losses.sum(), heads, retain_graph=True)
        of_body = torch.autograd.grad(losses.mean(), params)
        weight, bias = (h.detach() - RATE * g for h, g in zip(heads, of_heads, strict=True))
        with torch.no_grad():
            for param, grad in zip(params, of_body, strict=True):
                param -= OUTER_RATE * grad
    return weight, bias, losses.mean().item()


def test_classic_training_steps_on_all_at_once():
    learner = classic()
    optimizer = torch.optim.SGD(learner.parameters(), lr=OUTER_RATE)
    theirs = classic().model
    weight, bias, last = by_hand(theirs, repeated(3))
    history = fit(learner, repeated(3), optimizer, 3 * STEPS, progress=False)
    bodies = (model[:-1].state_dict() for model in (learner.model, theirs))
    assert relative_difference(*bodies) < 1e-12
    trained = learner.inner_models
    assert relative_difference(trained.params, {"2.weight": weight, "2.bias": bias}) < 1e-12
    assert trained.age.tolist() == [STEPS] * 3  # which start again together, with the next batch
    torch.testing.assert_close(history.loss[-1].item(), last, rtol=1e-6, atol=0)


def test_is_not_the_gradient_after_the_step():
    """`Unrolled(truncate=0)` alternates: it is the same gradient one step later."""
    episodes = next(repeated(1))
    alternating = classic()
    alternating.estimator = outer.Continued(outer.Unrolled(truncate=0), STEPS, staggered=False)
    first = alternating.estimate(episodes, keys())
    joint = classic()
    before = joint.estimate(episodes, keys())
    joint.carry.keep(before.carry)
    after = joint.estimate(episodes, keys())
    assert relative_difference(first.gradient.shared, after.gradient.shared) < 1e-12
    assert not before.gradient.shared["model.0.weight"].any()  # of heads that are zero


def test_replicas_have_runs_of_their_own():
    replicas, alone = ([classic(), classic()] for _ in range(2))
    with torch.no_grad():
        for learners in (replicas, alone):
            learners[1].model[0].weight.mul_(2)
    together = outer.Replicas(replicas)
    for episodes in repeated(2):
        twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
        losses = together(twice, keys=keys(6))
        for learner, loss in zip(alone, losses, strict=True):
            torch.testing.assert_close(learner(episodes, keys=keys()), loss, rtol=1e-12, atol=0)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
def test_is_the_gradient_at_the_start(options, episodes):
    learner = sine_learner(fast=["0", "4"], estimator=outer.Joint(), **options)
    estimate = learner.estimate(episodes, keys())
    losses = F.mse_loss(learner.model(episodes.query.x), episodes.query.y, reduction="none")
    torch.testing.assert_close(estimate.loss, losses.mean((1, 2)), rtol=1e-12, atol=0)
    expected = torch.autograd.grad(losses.mean(), list(learner.model.parameters()))
    named = dict(zip(dict(learner.model.named_parameters()), expected, strict=True))
    shared = {f"model.{name}": named.pop(name) for name in ("2.weight", "2.bias")}
    assert relative_difference(estimate.gradient.init, named) < 1e-12
    assert relative_difference(estimate.gradient.shared, shared) < 1e-12


def test_differentiates_a_start_that_is_learned():
    def start(meta, support, key):
        return {"w": meta.init["w"] * meta.shared["log_decay"].exp()}

    problem = Problem(ridge, on_query, inner.SGD(0.1), 1, start=start)
    gradient = outer.Joint()(problem, META, EPISODE, keys()[0], Carry()).gradient
    learned = [META.init["w"], META.shared["log_decay"]]
    leaves = tree_map(lambda leaf: leaf.clone().requires_grad_(), learned)
    loss = problem.query_loss({"w": leaves[0] * leaves[1].exp()}, {}, EPISODE)
    expected = torch.autograd.grad(loss, leaves)
    found = [gradient.init["w"], gradient.shared["log_decay"]]
    assert relative_difference(found, list(expected)) < 1e-12


def test_ends_where_the_inner_loop_does(episodes):
    learner = sine_learner(inner.Momentum(0.01), estimator=outer.Joint())
    one, meta = task(episodes), tree_detach(learner.meta)
    estimate = outer.Joint()(learner.problem, meta, one, keys()[0], Carry())
    adapted = inner.adapt(learner.problem, meta, one, keys()[0])
    assert relative_difference(estimate.params, adapted.params) < 1e-12
    assert relative_difference(estimate.state, adapted.state) < 1e-12


def test_gives_a_rule_nothing():
    with pytest.raises(ValueError, match="estimator Joint.. must reach all that is learned"):
        sine_learner(inner.MetaSGD(0.1), estimator=outer.Joint())


class TestStaggered:
    def test_ages_differ_or_not(self, episodes):
        ages = {}
        for staggered in (True, False):
            estimator = outer.Continued(outer.Unrolled(), 9, staggered=staggered)
            learner = sine_learner(estimator=estimator)
            for _ in range(2):
                learner(episodes, keys=keys()).backward()
            ages[staggered] = learner.inner_models.age.tolist()
        assert ages == {True: [3, 6, 6], False: [6, 6, 6]}

    def test_bad(self):
        with pytest.raises(TypeError, match="staggered must be True or False; got 1"):
            outer.Continued(outer.Unrolled(), 9, staggered=1)


def test_batches_as_the_docstring_writes_them():
    tasks = data.SupportAsQuery(data.Sinusoid(5, 1))
    batches = (batch for batch in tasks.batches(4) for _ in range(4))
    one, two, *_, fifth = islice(batches, 5)
    assert one is two
    assert not torch.equal(one.support.x, fifth.support.x)
