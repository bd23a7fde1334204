"""Rules whose updates are proportional to a rate."""

from dataclasses import dataclass, replace

from metalearn._checks import check_positive
from metalearn.inner._base import UpdateRule


@dataclass(frozen=True)
class Rated(UpdateRule):
    """A rule with a rate that is a factor of its updates, so that `LearnedRate` can learn it. Its
    `update` is abstract.

    Args:
        lr: The rate, positive.

    Raises:
        ValueError: If `lr` is not positive and finite.
    """

    lr: float

    def __post_init__(self) -> None:
        name = type(self).__name__
        fix = (
            f"Pass inner.{name}(lr=0.01), say; to learn it, "
            f"inner.LearnedRate(inner.{name}(lr=0.01))."
        )
        check_positive(f"{name}'s lr", self.lr, fix=fix)

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and this rule at rate 1."""
        return self.lr, replace(self, lr=1.0)
