"""What every change of another estimator's gradients shares."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from metalearn._checks import check_kind
from metalearn._fields import Check, Checked
from metalearn._tasks import vmap_tasks
from metalearn.outer._base import MetaGradient, Traits
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class PerTask(MetaGradient, Checked):
    """An estimator whose estimates are changed task by task, before the mean over tasks.

    Args:
        estimator: The estimator whose estimates are changed.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

    estimator: Annotated[
        MetaGradient, Check(check_kind, MetaGradient, "an estimator", "one to wrap: Unrolled()")
    ]

    def __init_subclass__(cls, **options: Any) -> None:
        """Inherit how all tasks are changed only together with how one is."""
        super().__init_subclass__(**options)
        nearest = next(
            base for base in cls.__mro__ if {"change", "change_tasks"} & vars(base).keys()
        )
        if "change_tasks" not in vars(nearest):
            cls.change_tasks = PerTask.change_tasks  # type: ignore[method-assign]

    @abstractmethod
    def change(self, estimate: Estimate) -> Estimate:
        """Return one task's estimate as it counts."""

    def change_tasks(self, estimates: Estimate) -> Estimate:
        """Return all tasks' estimates as they count, with a leading task axis as they come."""
        return vmap_tasks(self.change, estimates)

    @property
    def reaches(self) -> frozenset[str]:
        """What the wrapped estimator reaches."""
        return self.estimator.reaches

    @property
    def traits(self) -> Traits:
        """Those of the wrapped estimator, each task's gradient by itself."""
        of_wrapped = self.estimator.traits
        is_plain = all(
            getattr(type(self), name) is getattr(PerTask, name) for name in ("__call__", "adapt")
        )
        return replace(of_wrapped, per_task=True, leafwise=of_wrapped.leafwise and is_plain)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does."""
        self.estimator.check(problem, meta)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt as the wrapped estimator does."""
        return self.estimator.doubts(diagnostics)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the wrapped estimator's carry."""
        return self.estimator.init_carry(problem, meta, episode, key)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient and change it."""
        estimate = self.estimator(problem, meta, episode, key, carry)
        # All tasks at once have losses [num_tasks].
        return self.change_tasks(estimate) if estimate.loss.dim() else self.change(estimate)

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
