"""Estimators around estimators."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from metalearn._checks import check_kind
from metalearn._fields import Check, Checked
from metalearn.outer._base import MetaGradient, Traits
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class Wrapper(MetaGradient, Checked):
    """An estimator around another one, which decides what the subclass does not define.

    Args:
        estimator: The wrapped estimator.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

    estimator: Annotated[
        MetaGradient, Check(check_kind, MetaGradient, "an estimator", "one to wrap: Unrolled()")
    ]

    @property
    def reaches(self) -> frozenset[str]:
        """What the wrapped estimator reaches."""
        return self.estimator.reaches

    @property
    def traits(self) -> Traits:
        """Those of the wrapped estimator."""
        return self.estimator.traits

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does."""
        self.estimator.check(problem, meta)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt as the wrapped estimator does."""
        return self.estimator.doubts(diagnostics)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the wrapped estimator's carry."""
        return self.estimator.init_carry(problem, meta, episode, key)

    def populate(self, problem: Problem, own: PyTree, places: Tensor) -> PyTree:
        """Populate as the wrapped estimator does."""
        return self.estimator.populate(problem, own, places)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate as the wrapped estimator does."""
        return self.estimator(problem, meta, episode, key, carry)

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt as the wrapped estimator does."""
        return self.estimator.adapt(problem, meta, support, key, num_steps)


def unwrapped(estimator: MetaGradient) -> MetaGradient:
    """Return the estimator inside of all wrappers."""
    while isinstance(estimator, Wrapper):
        estimator = estimator.estimator
    return estimator
