"""Rules whose updates are proportional to a rate."""

from dataclasses import dataclass
from typing import Annotated

from metalearn._fields import Checked, Positive
from metalearn.inner._base import UpdateRule
from metalearn.inner._hyperparameters import replaced

FIX = "Pass inner.{own}(lr=0.01), say; to learn it, inner.LearnedRate(inner.{own}(lr=0.01))."


@dataclass(frozen=True)
class Rated(UpdateRule, Checked):
    """A rule whose updates are proportional to a rate, so that `LearnedRate` can learn it.

    Its `update` is abstract.

    Args:
        lr: The rate, positive.

    Raises:
        ValueError: If `lr` is not positive and finite.
    """

    lr: Annotated[Positive, FIX]

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and this rule at rate 1."""
        return self.lr, replaced(self, {"lr": 1.0})
