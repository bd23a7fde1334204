"""Rules around rules."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from metalearn._checks import check_kind, invalid
from metalearn._fields import Checked
from metalearn.inner._base import UpdateRule
from metalearn.inner._hyperparameters import replaced
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Wrapper(UpdateRule, Checked):
    """A rule around another one, which decides what the subclass does not define.

    Its `update` is abstract.

    Args:
        rule: The wrapped rule.

    Raises:
        TypeError: If `rule` is not an update rule.
        ValueError: If `rule` must be outermost.
    """

    outermost: ClassVar[bool] = False
    """Whether another wrapper around this one would change what it means."""

    rule: UpdateRule

    def __post_init__(self) -> None:
        super().__post_init__()
        own = type(self).__name__
        example = f"one to wrap: {own}(SGD(lr=0.01), ...)"
        check_kind(f"{own}'s rule", self.rule, UpdateRule, "an update rule", example)
        check_inside(own, self.rule)

    @property
    def as_values(self) -> frozenset[str]:
        """What the wrapped rule takes as values."""
        return self.rule.as_values

    def init_meta(self, params: Params) -> PyTree:
        """Return the wrapped rule's meta-parameters."""
        return self.rule.init_meta(params)

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the wrapped rule's state."""
        return self.rule.init_state(meta, params, key)

    def _split_inside(self) -> tuple[float, UpdateRule]:
        """Return the wrapped rule's rate, and this rule around it at rate 1, if the two commute."""
        rate, rule = self.rule.split_rate()
        return rate, replaced(self, {"rule": rule})


def check_inside(own: str, rule: UpdateRule) -> None:
    """Raise if a rule within another one, of class `own`, must be outermost."""
    if isinstance(rule, Wrapper) and rule.outermost:
        inside = type(rule).__name__
        fix = f"Write {inside}({own}(...), ...)."
        raise invalid(inside, "be outermost", f"it inside {own}", fix)
