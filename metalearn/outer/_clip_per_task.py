"""Clipping of every task's meta-gradient before the mean over tasks."""

from dataclasses import dataclass

from torch import Tensor

from metalearn._checks import check_choice, check_positive, invalid
from metalearn._tree import tree_leaves, tree_map
from metalearn.outer._base import MetaGradient
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class ClipPerTask(MetaGradient):
    """An estimator whose gradients are clipped elementwise, task by task, so that no task outweighs the others.

    Args:
        estimator: The estimator whose gradients are clipped.
        value: Bound on the magnitude of every element, positive.
        on: Which field of `Meta` is clipped: "init", "shared" or "rule".

    Raises:
        TypeError: If `estimator` is not an estimator.
        ValueError: If `value` is not positive, or `on` is no field of `Meta`.

    References:
        Huisman et al., "Revisiting learned optimizers in few-shot settings", 2021 (10, on the initialisation).
    """

    estimator: MetaGradient
    value: float
    on: str = "init"

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, MetaGradient):
            fix = "Wrap one: ClipPerTask(Unrolled(), value=10.0)."
            raise TypeError(invalid("ClipPerTask's estimator", "be an estimator", repr(self.estimator), fix))
        check_positive("ClipPerTask's value", self.value)
        check_choice("ClipPerTask's on", self.on, Meta._fields)

    @property
    def reaches(self) -> frozenset[str]:
        """What the wrapped estimator reaches."""
        return self.estimator.reaches

    @property
    def repeats_losses(self) -> bool:
        """Whether the wrapped estimator repeats losses."""
        return self.estimator.repeats_losses

    @property
    def differentiates(self) -> frozenset[str]:
        """Which losses the wrapped estimator differentiates."""
        return self.estimator.differentiates

    @property
    def leafwise(self) -> bool:
        """Whether the wrapped estimator can be given all tasks at once; not of gradients that come summed then."""
        return self.estimator.leafwise and self.on != "shared"

    @property
    def serial(self) -> bool:
        """Whether the wrapped estimator takes one task at a time."""
        return self.estimator.serial

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does, or if there is nothing to clip."""
        self.estimator.check(problem, meta)
        if not tree_leaves(getattr(meta, self.on)):
            fix = f"Choose on= among {[field for field in meta._fields if tree_leaves(getattr(meta, field))]}."
            raise ValueError(invalid("ClipPerTask's on", "be a field of Meta that is learned", repr(self.on), fix))

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt as the wrapped estimator does."""
        return self.estimator.doubts(diagnostics)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode) -> PyTree:
        """Return the wrapped estimator's carry."""
        return self.estimator.init_carry(problem, meta, episode)

    def __call__(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree) -> Estimate:
        """Estimate one task's meta-gradient and clip it."""
        estimate = self.estimator(problem, meta, episode, key, carry)
        part = getattr(estimate.gradient, self.on)
        clipped = tree_map(lambda grad: grad.clamp(-self.value, self.value), part)
        return estimate._replace(gradient=estimate.gradient._replace(**{self.on: clipped}))

    def adapt(self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int) -> Adapted:
        """Adapt as the wrapped estimator does."""
        return self.estimator.adapt(problem, meta, support, key, num_steps)
