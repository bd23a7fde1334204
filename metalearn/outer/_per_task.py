"""What every change of another estimator's gradients shares: all but the gradients stays as it
is.
"""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from metalearn._checks import check_kind
from metalearn.outer._base import MetaGradient
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class PerTask(MetaGradient):
    """An estimator whose estimates are changed task by task, before the mean over tasks. Subclasses
    say how.

    Args:
        estimator: The estimator whose estimates are changed.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

    estimator: MetaGradient

    def __post_init__(self) -> None:
        what, example = f"{type(self).__name__}'s estimator", "one to wrap: Unrolled()"
        check_kind(what, self.estimator, MetaGradient, "an estimator", example)

    @abstractmethod
    def change(self, estimate: Estimate) -> Estimate:
        """Return one task's estimate as it counts."""

    @property
    def reaches(self) -> frozenset[str]:
        """What the wrapped estimator reaches."""
        return self.estimator.reaches

    @property
    def one_backward(self) -> bool:
        """As the wrapped estimator."""
        return self.estimator.one_backward

    @property
    def repeats_losses(self) -> bool:
        """Whether the wrapped estimator repeats losses."""
        return self.estimator.repeats_losses

    @property
    def differentiates(self) -> frozenset[str]:
        """Which losses the wrapped estimator differentiates."""
        return self.estimator.differentiates

    @property
    def serial(self) -> bool:
        """Whether the wrapped estimator takes one task at a time."""
        return self.estimator.serial

    @property
    def joint(self) -> bool:
        """Whether the wrapped estimator takes all tasks for one."""
        return self.estimator.joint

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does."""
        self.estimator.check(problem, meta)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt as the wrapped estimator does."""
        return self.estimator.doubts(diagnostics)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode) -> PyTree:
        """Return the wrapped estimator's carry."""
        return self.estimator.init_carry(problem, meta, episode)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree
    ) -> Estimate:
        """Estimate one task's meta-gradient and change it."""
        return self.change(self.estimator(problem, meta, episode, key, carry))

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt as the wrapped estimator does."""
        return self.estimator.adapt(problem, meta, support, key, num_steps)


def unwrapped(estimator: MetaGradient) -> MetaGradient:
    """Return the estimator inside of all `PerTask` ones."""
    while isinstance(estimator, PerTask):
        estimator = estimator.estimator
    return estimator
