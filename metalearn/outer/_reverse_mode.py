"""What the two forms of reverse mode share: through which steps, of which losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_kind, invalid
from metalearn._fields import Check, Checked
from metalearn._tree import tree_leaves
from metalearn.outer._base import MetaGradient
from metalearn.outer._multi_step import MultiStep
from metalearn.types import Carry, Episode, Meta, Problem


def check_order(what: str, value: Any, *, fix: str) -> None:
    """Raise unless `value` is an order of derivatives."""
    if type(value) is not int or value not in (1, 2):
        raise invalid(what, "be 1 or 2", brief(value), fix)


WHOLE = 1.0
"""The weight of a query loss that counts alone."""


@dataclass(frozen=True)
class ReverseMode(MetaGradient, Checked):
    """Reverse mode through the last steps of the inner loop.

    Args:
        order: 2 is exact. 1 takes support gradients and losses as constants, the papers'
            first-order assumption.
        truncate: Number of last steps to differentiate; the gradient at the step before them is
            passed to `init` unchanged. None, or as many as there are, for all; 0 gives first-order
            MAML's gradient to `init`, and none to the rule.
        multi_step: Weights of the query losses after each step, whose weighted sum takes the place
            of the last one's; None for the last one alone. The number of iterations that they
            depend on is carried.

    Raises:
        TypeError: If `truncate` is no int, or `multi_step` no MultiStep.
        ValueError: If `order` is not 1 or 2, or `truncate` is negative.

    References:
        Shaban et al., "Truncated back-propagation for bilevel optimization", AISTATS 2019.
        Antoniou et al., "How to train your MAML", ICLR 2019 (multi-step loss).
    """

    _what = "{field}"

    order: Annotated[int, Check(check_order), "2 is exact, 1 drops the Hessian."] = 2
    truncate: Annotated[
        int | None, Check(check_count, minimum=0), "None differentiates all steps."
    ] = None
    multi_step: Annotated[
        MultiStep | None,
        Check(check_kind, MultiStep, "a MultiStep", "outer.MultiStep(num_iterations=10_000)"),
    ] = None

    @property
    def reaches(self) -> frozenset[str]:
        """Everything, but the rule only if a step is differentiated."""
        return frozenset({"init", "shared"} if self.truncate == 0 else Meta._fields)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the number of meta-iterations so far, on which multi-step weights may depend."""
        like = tree_leaves(meta.init)[0]
        # At least in float32: counted in bfloat16, 256 + 1 is 256.
        dtype = torch.promote_types(like.dtype, torch.float32)
        return Carry(like.new_zeros((), dtype=dtype) if self.multi_step else ())

    def num_constant(self, num_steps: int) -> int:
        """Return the number of first steps that are not differentiated."""
        return 0 if self.truncate is None else max(num_steps - self.truncate, 0)

    def weights(
        self, carry: Carry, num_steps: int
    ) -> tuple[Sequence[Tensor | float | None], Carry]:
        """Return the weight of the query loss after each step, or None, and the next carry.

        Without a step the query loss is that of the start.
        """
        if self.multi_step is None:
            return ([None] * (num_steps - 1) + [WHOLE])[:num_steps], carry
        weights = self.multi_step.weights(carry.common, num_steps)
        if len(weights) != num_steps:
            raise invalid("multi-step weights", f"be {num_steps}, one for every step", len(weights))
        return weights.unbind(), Carry(carry.common + 1)


def weighted(weight: Tensor | float, loss: Tensor) -> Tensor:
    """Return a loss times its weight, without a product where it counts alone."""
    return loss if weight is WHOLE else weight * loss
