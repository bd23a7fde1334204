"""What the two forms of reverse mode share: which derivatives are taken, and through how many steps."""

from dataclasses import dataclass

from metalearn._checks import check_count, invalid
from metalearn.outer._base import MetaGradient
from metalearn.types import Meta


@dataclass(frozen=True)
class ReverseMode(MetaGradient):
    """Reverse mode through the last steps of the inner loop.

    Args:
        order: 2 is exact. 1 takes support gradients and losses as constants, the papers' first-order assumption.
        truncate: Number of last steps to differentiate; the gradient at the step before them is passed to `init`
            unchanged. None for all; 0 gives first-order MAML's gradient to `init`, and none to the rule.

    Raises:
        TypeError: If `truncate` is no int.
        ValueError: If `order` is not 1 or 2, or `truncate` is negative.

    References:
        Shaban et al., "Truncated back-propagation for bilevel optimization", AISTATS 2019.
    """

    order: int = 2
    truncate: int | None = None

    def __post_init__(self) -> None:
        if type(self.order) is not int or self.order not in (1, 2):
            raise ValueError(invalid("order", "be 1 or 2", repr(self.order), "2 is exact, 1 drops the Hessian."))
        if self.truncate is not None:
            check_count("truncate", self.truncate, minimum=0, fix="None differentiates all steps.")

    @property
    def reaches(self) -> frozenset[str]:
        """Everything, but the rule only if a step is differentiated."""
        return frozenset({"init", "shared"} if self.truncate == 0 else Meta._fields)

    def num_constant(self, num_steps: int) -> int:
        """Return the number of first steps that are not differentiated."""
        return 0 if self.truncate is None else max(num_steps - self.truncate, 0)
