"""What estimators at the solution of the inner problem share: how far they are from it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_map, tree_ravel
from metalearn.functional import OnSupport
from metalearn.outer._checks._rules import check_rule
from metalearn.types import Meta, Problem, PyTree

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
