"""Gradient clipping around any rule."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._checks import check_positive, invalid
from metalearn.functional import safe_sqrt
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Clipped(Wrapper):
    """A rule that sees clipped gradients.

    Args:
        rule: The rule that receives them.
        value: Bound on the magnitude of every element, positive.
        norm: Bound on the Euclidean norm of the whole gradient, positive. Give exactly one bound.

    Raises:
        TypeError: If `rule` is not an update rule.
        ValueError: If not exactly one of the bounds is given, or it is not positive.
    """

    value: float | None = None
    norm: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = {"value": self.value, "norm": self.norm}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        if len(given) != 1:
            fix = "Write Clipped(rule, value=10.0) or Clipped(rule, norm=1.0)."
            raise invalid("Clipped", "be given exactly one of value and norm", given, fix)
        for name, bound in given.items():
            check_positive(f"Clipped's {name}", bound)

    @property
    def elementwise(self) -> bool:
        """Whether the wrapped rule is, and elements are clipped one by one."""
        return self.rule.elementwise and self.norm is None

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the wrapped rule's update for the clipped gradient."""
        clipped = grads
        if self.value is not None:
            clipped = {name: grad.clamp(-self.value, self.value) for name, grad in grads.items()}
        if self.norm is not None:
            clipped = _clip_norm(grads, self.norm)
        return self.rule.update(meta, clipped, state, params, loss, step)

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return the wrapped rule's rate and the clipped rule at rate 1."""
        return self._split_inside()


def _clip_norm(grads: Params, bound: float) -> Params:
    norm = safe_sqrt(torch.stack([grad.square().sum() for grad in grads.values()]).sum())
    scale = torch.where(norm > bound, bound / torch.where(norm > bound, norm, 1.0), 1.0)
    return {name: scale * grad for name, grad in grads.items()}
