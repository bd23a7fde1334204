"""What estimators at the solution of the inner problem share: how far they are from it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_map, tree_ravel
from metalearn.functional import OnSupport
from metalearn.inner._step import take_step
from metalearn.outer._checks._rules import check_rule
from metalearn.types import Adapted, Episode, Meta, Problem, PyTree

TRUSTED = 0.5
"""Relative inner gradient and residual above which a learner warns."""


def check_rests(estimator: Any, problem: Problem, meta: Meta) -> None:
    """Raise if the rule moves on at gradients of zero, which is where the estimator takes its own.

    Args:
        estimator: Named in the error.
        problem: Its rule is asked.
        meta: What is learned.
    """
    # Not at the start itself, which may be zero, where weight decay rests too, or have no values
    # yet.
    ones = tree_map(lambda start: torch.ones_like(start, device="cpu"), meta.init)
    with random_numbers_kept():
        updates = check_rule(problem, meta._replace(init=ones), torch.tensor(0, device="cpu"))
    if any(update.any() for update in updates.values()):
        fix = "Put a penalty into support_loss=: see docs/how_to/hyperparameters.md."
        got = f"{problem.rule}, whose update there is not zero"
        raise invalid(f"rule under {estimator}", "rest where the gradient is zero", got, fix)


def whole(support_loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the loss on the whole support set, if the steps see parts of it."""
    return support_loss.whole() if isinstance(support_loss, OnSupport) else support_loss


def approached(
    problem: Problem, meta: Meta, episode: Episode, key: Tensor, enough: Tensor
) -> tuple[Adapted, Tensor]:
    """Adapt until the norm of the gradient is as small as is enough, or the steps are over.

    All steps are computed, as `vmap` and graphs need it; a task that is there stands still.

    Args:
        problem: What is minimised; its rule rests where the gradient is zero.
        meta: What is learned.
        episode: The task's data.
        key: The task's random key.
        enough: The norm, a scalar.

    Returns:
        What it has adapted to, and the number of steps that it took, an int64 scalar.
    """
    params, state = problem.begin(meta, episode.support, key)
    going, taken = torch.ones_like(key, dtype=torch.bool), torch.zeros_like(key)
    for index in range(problem.num_steps):
        after = take_step(problem, meta, params, state, episode, index, fresh=index > 0)
        going = going & ~(tree_ravel(after.grads)[0].norm() <= enough)  # NaN goes on
        choose: Any = partial(torch.where, going)
        params, state = tree_map(choose, (after.params, after.state), (params, state))
        taken = taken + going
    return Adapted(params, meta.shared, state), taken


def relative(left: PyTree, of: PyTree) -> Tensor:
    """Return the norm of what is left relative to that of what there was."""
    norms = [tree_ravel(tree)[0].norm() for tree in (left, of)]
    return norms[0] / norms[1].clamp(min=torch.finfo(norms[1].dtype).tiny)


def unsolved(
    estimator: Any, diagnostics: dict[str, Tensor], fixes: dict[str, tuple[str, str]]
) -> list[str]:
    """Doubt an inner problem that is far from solved, and a linear system that is.

    Args:
        estimator: Named in the doubts.
        diagnostics: Of its first estimate.
        fixes: By name of a diagnostic what helps where it is slow, "" if it may be, and where it
            diverges.
    """
    doubts = []
    for name, (slow, diverging) in fixes.items():
        value = diagnostics[name].item()
        fix = slow if value <= 1 else diverging
        if fix and not value <= TRUSTED:  # NaN too
            text = f"{estimator} has {name} = {value:.2g} at its first call, where 0 is exact."
            doubts.append(f"{text} {fix}")
    return doubts
