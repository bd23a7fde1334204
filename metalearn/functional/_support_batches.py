"""Which of a task's support examples an inner step sees."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, invalid, mistyped
from metalearn._slices import part
from metalearn._tree import tree_leaves, tree_map
from metalearn.types import Batch

FIX = (
    "Write support_batches=5 or functional.SampledBatches(5), say, or leave it out for all at once."
)


class SupportBatches(ABC):
    """Which of a task's support examples an inner step sees. A frozen dataclass, like a rule."""

    @abstractmethod
    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return what a step sees of a task's support set, as a pure function of the arguments.

        Args:
            support: The whole support set of one task, or those of all, with a leading task axis.
            key: A random key of the task, for these draws alone, or `[num_tasks]`; None where
                nobody knows the task's.
            step: Number of the step, from 0; a Python int.
            axis: That of the examples: 0, or 1 behind one of tasks.
        """

    def check(self, support: Batch) -> None:
        """Raise a ValueError for support sets, with a task axis, that cannot be batched so."""
        return

    def examples(self, support: Batch, axis: int = 0) -> Batch:
        """Return a support set as one batch of all its examples, `axis` being theirs."""
        return support

    def steps_of(self, support: Batch) -> int | None:
        """Return how many steps support sets, with a task axis, are for; None for any number."""
        return None


@dataclass(frozen=True)
class AllExamples(SupportBatches):
    """All examples at every step, of support sets that others make batches of."""

    batches: SupportBatches

    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return all examples."""
        return self.batches.examples(support, axis)


@dataclass(frozen=True)
class DealtBatches(SupportBatches):
    """Equal parts that take turns: step t sees every `count`-th example from `t % count` on.

    Args:
        count: Number of parts, at least 1.

    Raises:
        TypeError: If `count` is no int.
        ValueError: If `count` is below 1.

    >>> DealtBatches(2).of_step(Batch(torch.arange(6)), None, step=1).x
    tensor([1, 3, 5])
    """

    count: int

    def __post_init__(self) -> None:
        check_count("support_batches", self.count, fix=FIX)

    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return the part whose turn it is."""
        examples = slice(step % self.count, None, self.count)
        return tree_map(lambda leaf: part(leaf, examples, axis), support)

    def check(self, support: Batch) -> None:
        """Raise unless the support sets can be dealt into equal parts."""
        if self.count > 1 and tree_leaves(support.weight):
            fix = (
                "Leave support_batches out, or draw them: "
                "support_batches=functional.SampledBatches(5)."
            )
            raise invalid("support_batches", "be 1 for tasks of different sizes", self.count, fix)
        sizes = {leaf.shape[1] for leaf in tree_leaves(support) if leaf.dim() > 1}
        if bad := [size for size in sizes if size % self.count]:
            fix = f"Use support_batches={_largest_divisor(bad[0], self.count)}, say."
            raise invalid(
                "support_batches", f"divide the {bad[0]} support examples", self.count, fix
            )


def as_support_batches(support_batches: Any) -> SupportBatches | None:
    """Return what the argument of a learner means: None for the whole support set at every step."""
    if support_batches is None or isinstance(support_batches, SupportBatches):
        return support_batches
    condition = "be an int or a functional.SupportBatches"
    if isinstance(support_batches, bool) or not isinstance(support_batches, int):
        raise mistyped("support_batches", condition, brief(support_batches), FIX)
    return DealtBatches(support_batches)


def chosen(batch: Batch, index: Tensor, axis: int) -> Batch:
    """Return the examples of these numbers, `[batch_size]` or, behind an axis of tasks, each's."""
    rows = (torch.arange(len(index), device=index.device)[:, None],) * axis
    return tree_map(lambda leaf: leaf[(*rows, index)], batch)


def _largest_divisor(number: int, at_most: int) -> int:
    candidates: Iterable[int] = range(min(number, at_most), 0, -1)
    return next(divisor for divisor in candidates if number % divisor == 0)
