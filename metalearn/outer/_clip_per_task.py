"""Clipping of every task's meta-gradient before the mean over tasks."""

from dataclasses import dataclass
from typing import Annotated

from metalearn._brief import brief
from metalearn._checks import check_choice, invalid
from metalearn._fields import Check, Positive
from metalearn._tree import tree_leaves, tree_map
from metalearn.outer._per_task import PerTask
from metalearn.types import Estimate, Meta, Problem


@dataclass(frozen=True)
class ClipPerTask(PerTask):
    """An estimator whose gradients are clipped elementwise, task by task.

    So no task outweighs the others.

    Args:
        estimator: The estimator whose gradients are clipped.
        value: Bound on the magnitude of every element, positive.
        on: Which field of `Meta` is clipped: "init", "shared" or "rule".

    Raises:
        TypeError: If `estimator` is not an estimator.
        ValueError: If `value` is not positive, or `on` is no field of `Meta`.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, appendix A.1: a
            threshold of 10 where there are several steps; that the initialisation's gradient is
            clipped, task by task, is its code's.
    """

    value: Positive
    on: Annotated[str, Check(check_choice, Meta._fields)] = "init"

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does, or if there is nothing to clip."""
        super().check(problem, meta)
        if not tree_leaves(getattr(meta, self.on)):
            fix = (
                "Choose on= among "
                f"{[field for field in meta._fields if tree_leaves(getattr(meta, field))]}."
            )
            raise invalid(
                "ClipPerTask's on", "be a field of Meta that is learned", brief(self.on), fix
            )

    def change_tasks(self, estimates: Estimate) -> Estimate:
        """Clip all tasks' gradients, element by element."""
        return self.change(estimates)

    def change(self, estimate: Estimate) -> Estimate:
        """Clip the gradients."""
        part = getattr(estimate.gradient, self.on)
        clipped = tree_map(lambda grad: grad.clamp(-self.value, self.value), part)
        return estimate._replace(gradient=estimate.gradient._replace(**{self.on: clipped}))
