"""Contract suites for update rules and estimators, including a user's own."""

import pickle
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch.nn as nn
from torch import Tensor

from metalearn import inner, outer
from metalearn._contract import (
    CASES,
    CHUNKS,
    LOOP,
    cases_of,
    check_close,
    check_compiled,
    check_estimate,
    check_exact,
    check_protocol,
    check_round_trips,
    finite_difference,
    require,
)
from metalearn._memory import peak_live_bytes
from metalearn._random import random_numbers_kept
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._checks._derivative_errors import derivatives_explained
from metalearn.outer._checks._model import needs_copies
from metalearn.outer._checks._purity import compare
from metalearn.outer._checks._second_derivatives import check_second_derivatives
from metalearn.outer._copied_loss import are_copied, with_copies
from metalearn.types import Batch, Episode, Meta, Problem

__all__ = [
    "ModelCheck",
    "check_meta_gradient",
    "check_model",
    "check_update_rule",
    "finite_difference",
    "peak_live_bytes",
]


class ModelCheck(NamedTuple):
    """What `check_model` found of a model that passes.

    Attributes:
        error: Largest relative distance between a learner's losses and gradients and those of a
            copy of the model.
        tolerance: Largest error that rounding explains in the dtype of the comparison.
        recomputes: Whether the backward pass recomputes part of the model, as
            `torch.utils.checkpoint` does; a learner then loops over tasks and copies the model at
            every call.
        seconds: Duration of the comparison.
        peak_bytes: Peak memory of its tensors in bytes, beyond those alive before it.
    """

    error: float
    tolerance: float
    recomputes: bool
    seconds: float
    peak_bytes: int


def check_update_rule(
    rule: inner.UpdateRule, *, surrogate: Collection[str] = (), compile: bool = True
) -> None:
    """Check that a rule keeps the `UpdateRule` protocol and is differentiated exactly.

    In float64, on linear and convolutional layers with biases: updates have the parameters' shapes,
    are pure and have finite derivatives at gradients of zero; `Unrolled` matches finite differences
    of a naive loop; `Stepwise`, a loop over tasks, chunks and the compiled step agree with it;
    an elementwise rule makes of many tasks what it makes of each; meta-parameters survive pickling
    and `state_dict`; float32 parameters stay float32.

    Args:
        rule: The rule.
        surrogate: Paths of meta-parameters, such as "mask", whose gradient is deliberately not the
            derivative (straight-through estimators); they are not compared with finite differences.
        compile: Whether to capture it as a graph too, which takes a few seconds.

    Raises:
        AssertionError: If a check fails, with its name.

    >>> check_update_rule(inner.SGD(lr=0.1), compile=False)
    """
    surrogate = (surrogate,) if isinstance(surrogate, str) else surrogate
    for case in CASES:
        check_protocol(rule, case)
        for order in (1, 2):
            unrolled, stepwise = outer.Unrolled(order), outer.Stepwise(order)
            check_exact(rule, unrolled, case, order, surrogate)
            check_close(rule, case, {"estimator": unrolled}, {"estimator": stepwise})
        check_close(rule, case, {}, LOOP)
        check_close(rule, case, {}, CHUNKS)
    check_round_trips(rule, CASES[0])
    if compile:
        check_compiled(rule, CASES[0], {"num_steps": 2})


def check_meta_gradient(
    estimator: outer.MetaGradient, *, order: int | None = 2, compile: bool = True
) -> None:
    """Check that an estimator keeps the protocol of `metalearn.outer.MetaGradient`.

    In float64: the estimate has the shape of the meta-parameters, is finite, and is zero where the
    estimator does not reach; the carry keeps its structure; vmap, a loop, chunks and the compiled
    step agree; the estimator pickles; and its gradient matches finite differences of a naive loop.

    Args:
        estimator: The estimator.
        order: What its gradient is compared with: 2 for the exact gradient, 1 for the gradient with
            support gradients held constant, None for an approximation.
        compile: Whether to capture it as a graph too, which takes a few seconds.

    Raises:
        AssertionError: If a check fails, with its name.

    >>> check_meta_gradient(outer.Stepwise(order=1), order=1, compile=False)
    """
    rule = inner.MetaSGD(0.1) if "rule" in estimator.reaches else inner.SGD(0.1)
    options: dict[str, Any] = {"estimator": estimator, "learn_init": "init" in estimator.reaches}
    cases = cases_of(estimator)
    for case in cases:
        check_estimate(rule, case, options)
        if order is not None:
            check_exact(rule, estimator, case, order)
        check_close(rule, case, options, LOOP)
        check_close(rule, case, options, CHUNKS)
    copy = pickle.loads(pickle.dumps(estimator))
    require(copy == estimator, "it equals its pickled copy", estimator)
    if compile:
        check_compiled(rule, cases[0], {**options, "num_steps": 2})


def check_model(
    model: nn.Module, batch: Batch, criterion: Callable[..., Tensor], *, order: int = 2
) -> ModelCheck:
    """Check that a model depends on the parameters that it is given and on nothing else.

    At parameters other than the model's own, the losses before and after one inner step, the
    gradient and the meta-gradient are compared with those of copies that hold these parameters, in
    plain autograd. The model must be unchanged afterwards. This finds weights in lists, caches,
    closures and hooks, state that outlives a call, and writes into parameters and buffers. The
    comparison is in the parameters' dtype, and in float64 where that is inconclusive. Learners run
    this check at their first call.

    Args:
        model: The model.
        batch: One task's examples `[num_examples, ...]`.
        criterion: `(output, y) -> scalar`.
        order: Highest derivative to compare: 2, 1, or 0 for losses alone.

    Returns:
        How close the two are, and the cost of the comparison.

    Raises:
        AssertionError: If no learner can be built from the model and called, the model differs from
            its copy, or a function in it can be differentiated once alone and `order` is 2.

    >>> import torch, torch.nn.functional as F
    >>> batch = Batch(torch.randn(4, 3), torch.randn(4, 2))
    >>> found = check_model(nn.Linear(3, 2), batch, F.mse_loss)
    >>> found.error <= found.tolerance, found.recomputes
    (True, False)
    """
    try:
        learner = outer.MetaLearner(model, criterion, inner.SGD(lr=0.1), num_steps=1)
        episodes = tree_map(lambda leaf: leaf[None], Episode(batch, batch))
        learner.check_episodes(episodes)
        meta, episode = tree_detach(learner.meta), take(episodes, 0)
        start = time.perf_counter()
        with derivatives_explained("second" if order == 2 else "first"):
            if order == 2:
                _check_second_derivatives(learner.problem, meta, episode)
            recomputes = are_copied(learner.problem) or needs_copies(
                learner.problem, model, meta, episode, order
            )
        seconds = time.perf_counter() - start
    except (TypeError, ValueError) as error:
        raise AssertionError(str(error)) from error
    problem = with_copies(learner.problem) if recomputes else learner.problem
    found = compare(problem, meta, episode, order)
    peak = peak_live_bytes(lambda: compare(problem, meta, episode, order), learner.device)
    return ModelCheck(found.error, found.tolerance, recomputes, seconds, peak)


def _check_second_derivatives(problem: Problem, meta: Meta, episode: Episode) -> None:
    """Raise if a function of autograd in the support loss cannot be differentiated twice."""
    init = tree_map(lambda leaf: leaf.requires_grad_(), tree_detach(meta.init))
    with random_numbers_kept(tree_leaves(init)[0].device):
        loss = problem.support_loss(init, meta.shared, episode, 0)
    check_second_derivatives(loss, list(init.values()))
