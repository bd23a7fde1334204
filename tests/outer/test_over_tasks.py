"""All tasks at once give what vmap over tasks gives."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, outer
from metalearn._tree import tree_detach, tree_map
from metalearn.outer._over_tasks import How, choose, over_tasks
from metalearn.outer._per_task import PerTask
from metalearn.types import Carry, Estimate, Meta
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner, task


@dataclass(frozen=True)
class Vmapped(outer.Unrolled):
    """A subclass, of which nothing is known."""


@dataclass(frozen=True)
class VmappedStepwise(outer.Stepwise):
    """Likewise."""


@dataclass(frozen=True)
class VmappedDifference(outer.ParameterDifference):
    """Likewise."""


REVERSE = [(outer.Unrolled, Vmapped), (outer.Stepwise, VmappedStepwise)]
RULES = [
    inner.SGD(0.01),
    inner.LearnedRate(inner.Nesterov(0.01)),
    inner.LearnedRate(inner.Clipped(inner.RMSProp(0.01, eps=0.1), value=1.0), "tensor"),
    inner.MetaSGD(0.01),
    inner.LearnedRate(inner.Adam(0.01, eps=1e-3), "tensor"),
    inner.LearnedRate(inner.Momentum(0.01), "parameter", 2),
    inner.LSTM(hidden_size=2, lr=0.01),
    inner.Turtle(("grad", "grad_history", "loss", "step"), hidden=(3,), beta=0.5, lr=0.01),
    inner.SelfAdapting(inner.KroneckerLinear(0.01), lr=0.01),
    inner.Masked(inner.Adam(0.01, eps=1e-3)),
    RandomMask(0.01),
]


@pytest.mark.parametrize("options", [{}, {"order": 1}, {"multi_step": outer.MultiStep(5)}], ids=str)
@pytest.mark.parametrize("kinds", REVERSE, ids=["whole", "step"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_reverse_mode(rule, kinds, options, episodes):
    at_once, vmapped = (
        sine_learner(rule, estimator=kind(**options)).estimate(episodes, keys()) for kind in kinds
    )
    assert at_once.gradient.init["0.weight"].any()
    assert relative_difference(at_once[:3], vmapped[:3]) < 1e-9


@pytest.mark.parametrize("kinds", REVERSE, ids=["whole", "step"])
@pytest.mark.parametrize("truncate", [0, 1])
def test_truncated(kinds, truncate, episodes):
    estimators = [kind(truncate=truncate) for kind in kinds]
    learners = [sine_learner(inner.Momentum(0.01), estimator=estimator) for estimator in estimators]
    at_once, vmapped = (learner.estimate(episodes, keys()) for learner in learners)
    assert relative_difference(at_once[:3], vmapped[:3]) < 1e-10


@pytest.mark.parametrize("keep_state", [False, True])
def test_parameter_difference(keep_state, episodes):
    rule = inner.Adam(0.01)
    kinds = (outer.ParameterDifference, VmappedDifference)
    at_once, vmapped = (
        sine_learner(rule, estimator=kind(keep_state)).estimate(episodes, keys()) for kind in kinds
    )
    assert relative_difference(at_once[:3], vmapped[:3]) < 1e-10


WRAPPERS = [outer.SkipDiverged, partial(outer.ClipPerTask, value=1e3)]
WRAPPED = [
    outer.Unrolled(),
    outer.Unrolled(order=1, truncate=2),
    outer.Stepwise(segment=2),
    outer.ParameterDifference(),
    outer.ForwardMode(),
    outer.ForwardGradient(2),
    outer.Implicit(2.0),
    outer.Implicit(2.0, epsilon=0.01),
    outer.EvolutionStrategies(4),
    outer.PersistentES(2, 0.01, horizon=6),
]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("wrap", WRAPPERS, ids=["skip", "clip"])
@pytest.mark.parametrize("estimator", WRAPPED, ids=str)
def test_wrapping_loses_no_way_of_running(estimator, wrap, batching, episodes):
    learners = [
        sine_learner(estimator=each, batching=batching, learn_init=True)
        for each in (estimator, wrap(estimator), wrap(wrap(estimator)))
    ]
    ways = {choose(each.estimator, each.problem, batching).way for each in learners}
    assert len(ways) == 1
    assert replace(learners[1].estimator.traits, per_task=False) == estimator.traits
    plain, once, twice = (learner.estimate(episodes, keys()) for learner in learners)
    assert relative_difference(once.gradient, plain.gradient) < 1e-10
    assert relative_difference(twice.gradient, plain.gradient) < 1e-10


@pytest.mark.parametrize("kind", [outer.Unrolled, outer.Stepwise])
def test_a_wrapper_sees_every_task_s_own_gradient_to_what_is_shared(kind, episodes):
    """It halves the largest one alone."""

    @dataclass(frozen=True)
    class HalfOfLarge(PerTask):
        def change(self, estimate):
            shared = estimate.gradient.shared
            norm = torch.stack([leaf.square().sum() for leaf in shared.values()]).sum().sqrt()
            halved = {n: torch.where(norm > largest, leaf / 2, leaf) for n, leaf in shared.items()}
            return estimate._replace(gradient=estimate.gradient._replace(shared=halved))

    each = [
        sine_learner(fast="4").estimate(task(episodes, slice(i, i + 1)), keys()[i : i + 1])
        for i in range(3)
    ]
    norms = [
        torch.stack([leaf.square().sum() for leaf in one.gradient.shared.values()]).sum().sqrt()
        for one in each
    ]
    largest = (sorted(norms)[1] + sorted(norms)[2]) / 2
    learner = sine_learner(fast="4", estimator=HalfOfLarge(kind()))
    assert choose(learner.estimator, learner.problem, "vmap").way == "at once"
    estimate = learner.estimate(episodes, keys())
    for name, leaf in estimate.gradient.shared.items():
        halved = [
            one.gradient.shared[name] / (2 if norm > largest else 1)
            for one, norm in zip(each, norms, strict=True)
        ]
        torch.testing.assert_close(leaf, sum(halved) / 3, rtol=1e-9, atol=1e-14)


def test_every_task_is_clipped_for_itself(episodes):
    estimators = (outer.ClipPerTask(kind(), 0.5) for kind in (outer.Unrolled, Vmapped))
    at_once, vmapped = (
        sine_learner(estimator=estimator).estimate(episodes, keys()) for estimator in estimators
    )
    assert relative_difference(at_once.gradient, vmapped.gradient) < 1e-10


@pytest.mark.parametrize("on", ["init", "shared"])
def test_every_tasks_gradient_to_what_is_shared_is_clipped_for_itself(on, episodes):
    estimators = (outer.ClipPerTask(kind(), 0.05, on=on) for kind in (outer.Unrolled, Vmapped))
    learners = [sine_learner(fast="4", estimator=estimator) for estimator in estimators]
    at_once, vmapped = (learner.estimate(episodes, keys()) for learner in learners)
    assert relative_difference(at_once.gradient, vmapped.gradient) < 1e-10


@pytest.mark.parametrize("kinds", REVERSE, ids=["whole", "step"])
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_to_what_is_shared(order, kinds, episodes):
    estimators = [kind(order=order) for kind in kinds]
    learners = [
        sine_learner(inner.MetaSGD(0.01), fast="4", estimator=estimator) for estimator in estimators
    ]
    at_once, vmapped = (learner.estimate(episodes, keys()) for learner in learners)
    assert at_once.gradient.shared["model.0.weight"].any()
    assert relative_difference(at_once[:3], vmapped[:3]) < 1e-10


def test_a_shared_gradient_that_diverges_marks_all_tasks(episodes):
    """Where the gradient alone is infinite no task can be named."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, output, target):
            return F.mse_loss(output, target) + self.scale.sqrt()

    model = sine_learner().model
    learner = outer.MAML(model, Root(), inner.SGD(0.01), num_steps=1, support_criterion=F.mse_loss)
    estimate = learner.estimate(episodes)
    assert estimate.loss.isfinite().all()
    assert not estimate.diagnostics["finite"].any()


def test_diverged_tasks_are_found(episodes):
    episodes.support.y[1] = torch.nan
    finite = sine_learner().estimate(episodes, keys()).diagnostics["finite"]
    assert finite.tolist() == [True, False, True]


def test_a_diverged_task_does_not_mark_the_others_that_share_a_gradient(episodes):
    """The sum of all tasks' gradients is not finite then, and the losses tell whose fault it is."""
    episodes.support.y[1, 0] = torch.inf
    finite = sine_learner(fast=["2", "4"]).estimate(episodes, keys()).diagnostics["finite"]
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("fast", ["*", "4"])
@pytest.mark.parametrize("num_steps", [0, 1, 4])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_adapt(rule, num_steps, fast, episodes):
    at_once, vmapped = (
        sine_learner(rule, fast=fast, estimator=kind()).adapt(
            episodes.support, num_steps, keys=keys()
        )
        for kind in (outer.Unrolled, Vmapped)
    )
    for name, param in at_once.params.items():
        torch.testing.assert_close(param, vmapped.params[name], rtol=1e-10, atol=1e-12)
    tree_map(torch.testing.assert_close, at_once.state, vmapped.state)


def test_a_model_that_cannot_be_vmapped_is_told_of_the_loop():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if x.sum() > 0 else 1)

    learner = outer.MAML(Branching(1, 1).double(), F.mse_loss, inner.SGD(0.01), num_steps=1)
    with pytest.raises(RuntimeError, match="vmap") as raised:
        learner(sine_episodes())
    assert 'batching="loop"' in raised.value.__notes__[0]
    outer.MAML(learner.model, F.mse_loss, inner.SGD(0.01), num_steps=1, batching="loop")(
        sine_episodes()
    ).backward()


def test_tasks_draw_numbers_of_their_own():
    model = nn.Sequential(nn.Linear(1, 64), nn.Dropout(), nn.Linear(64, 1)).double()
    one = sine_episodes(1)
    twice = tree_map(lambda leaf: leaf.expand(2, *leaf.shape[1:]), one)
    losses = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=1).estimate(twice).loss
    assert losses[0] != losses[1]


@dataclass(frozen=True)
class Twice(outer.Unrolled):
    """An estimator of one's own that takes the gradient to what is shared in two backward
    passes."""

    traits = outer.Traits(leafwise=True)

    def __call__(self, problem, meta, episode, key, carry):
        shared = {
            name: param.detach().clone().requires_grad_() for name, param in meta.shared.items()
        }
        total = {name: torch.zeros_like(param) for name, param in shared.items()}
        for _ in range(2):
            with torch.enable_grad():
                loss = problem.query_loss(meta.init, shared, episode)
            grads = torch.autograd.grad(loss.sum(), list(shared.values()))
            total = {name: total[name] + grad for name, grad in zip(total, grads, strict=True)}
        zero = tree_map(torch.zeros_like, (meta.init, meta.rule))
        return Estimate(Meta(zero[0], total, zero[1]), loss.detach(), carry, {})


def test_graphs_are_shared_only_by_one_backward_pass(episodes):
    learner = sine_learner(fast="4")
    arguments = learner.problem, tree_detach(learner.meta), keys(), (episodes, keys(), Carry())
    shared = over_tasks(Twice(), *arguments, How("at once")).gradient.shared
    assert all(grad.any() for name, grad in shared.items() if name.endswith("weight"))


def test_a_learner_without_gradients_works_in_chunks(episodes):
    seen = []

    class Sizes(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    learner = outer.MAML(Sizes(1, 1).double(), F.mse_loss, inner.SGD(0.01), num_steps=1)
    with torch.no_grad():
        whole = learner(episodes, keys=keys())
        learner.set_batching(chunk_size=2)
        torch.testing.assert_close(learner(episodes, keys=keys()), whole)


@dataclass(frozen=True)
class StartsByNorm(inner.Momentum):
    """It says nothing of tasks, and mixes the elements of a tensor."""

    def init_state(self, meta, params, key):
        norm = torch.stack([param.square().sum() for param in params.values()]).sum().sqrt()
        return {name: 0.1 * param / norm for name, param in params.items()}


@dataclass(frozen=True)
class Projected(inner.SGD):
    """Likewise, in one operation."""

    def advance(self, meta, grads, state, params, loss, step):
        params, state = super().advance(meta, grads, state, params, loss, step)
        return {n: p / p.norm().clamp(min=1) * p.norm().clamp(max=1) for n, p in params.items()}, ()


class ByNorm:
    def update(self, meta, grads, state, params, loss, step):
        return {name: -0.01 * grad / grad.norm() for name, grad in grads.items()}, state


@dataclass(frozen=True)
class Mixed(ByNorm, inner.SGD):
    """A rule whose update comes from elsewhere."""


@pytest.mark.parametrize(
    "rule", [StartsByNorm(0.01), inner.LearnedRate(StartsByNorm(0.01)), Mixed(0.01)], ids=str
)
def test_a_subclass_of_an_elementwise_rule_need_not_be_one(rule, episodes):
    at_once, loop = (
        sine_learner(rule, batching=batching).estimate(episodes, keys())
        for batching in ("vmap", "loop")
    )
    assert relative_difference(at_once[:2], loop[:2]) < 1e-9


def test_an_advance_must_add_the_update(episodes):
    assert not Projected(0.01).elementwise
    message = r"advance of Projected\(lr=0.01\) must add the rule's update; got other parameters"
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        sine_learner(Projected(0.01))(episodes)


@dataclass(frozen=True)
class ByTheNorm(outer.ClipPerTask):
    """Another way of clipping, written for one task."""

    def change(self, estimate):
        init = estimate.gradient.init
        norm = torch.stack([leaf.square().sum() for leaf in init.values()]).sum().sqrt()
        scaled = {name: leaf / norm for name, leaf in init.items()}
        return estimate._replace(gradient=estimate.gradient._replace(init=scaled))


@dataclass(frozen=True)
class SkipAll(outer.SkipDiverged):
    """One that changes what the wrapper around it does."""

    def change(self, estimate):
        gradient = tree_map(torch.zeros_like, estimate.gradient)
        return super().change(estimate)._replace(gradient=gradient)


@pytest.mark.parametrize("kind", [ByTheNorm(outer.Unrolled(), 1.0), SkipAll(outer.Unrolled())])
def test_a_subclass_of_a_wrapper_changes_one_task(kind, episodes):
    at_once, loop = (
        sine_learner(estimator=kind, batching=batching).estimate(episodes, keys())
        for batching in ("vmap", "loop")
    )
    assert relative_difference(at_once.gradient, loop.gradient) < 1e-9
