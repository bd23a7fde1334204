"""What every change of another estimator's gradients shares."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from metalearn._tasks import vmap_tasks
from metalearn.outer._base import Traits
from metalearn.outer._wrapper import Wrapper
from metalearn.types import Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class PerTask(Wrapper):
    """An estimator whose estimates are changed task by task, before the mean over tasks.

    Args:
        estimator: The estimator whose estimates are changed.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

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
    def traits(self) -> Traits:
        """Those of the wrapped estimator, each task's gradient by itself."""
        of_wrapped = self.estimator.traits
        is_plain = all(
            getattr(type(self), name) is getattr(PerTask, name) for name in ("__call__", "adapt")
        )
        return replace(of_wrapped, per_task=True, leafwise=of_wrapped.leafwise and is_plain)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient and change it."""
        estimate = super().__call__(problem, meta, episode, key, carry)
        # All tasks at once have losses [num_tasks].
        return self.change_tasks(estimate) if estimate.loss.dim() else self.change(estimate)
