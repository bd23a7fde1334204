"""Which of a task's support examples an inner step sees."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, invalid, mistyped
from metalearn._fields import Checked, Count, Flag
from metalearn._slices import part
from metalearn._tree import tree_leaves, tree_map
from metalearn.functional._keys import uniform
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


@dataclass(frozen=True)
class SampledBatches(SupportBatches, Checked):
    """Mini-batches that every step draws anew from the whole support set, by the task's key.

    The same key draws the same examples however tasks are batched, and as often as a step is
    computed. Of a padded task, whose examples have weights, a step sees all examples, those that
    are not drawn with weights of next to nothing, and so what it would see of the task without
    padding.

    Args:
        size: Number of examples in a mini-batch, at least 1; of a padded task with fewer, all.
        replacement: Whether one example may be drawn several times for one mini-batch. Not by
            default, as in PyTorch's samplers; two steps are independent either way.

    Raises:
        TypeError: If `size` is no int, or `replacement` no bool.
        ValueError: If `size` is below 1.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, algorithm 3, line 7,
        which leaves it open whether examples are replaced.

    >>> batches = SampledBatches(3)
    >>> batches.of_step(Batch(torch.arange(6)), torch.tensor(7), step=0).x.unique().shape
    torch.Size([3])
    """

    _what = "SampledBatches' {field}"

    size: Annotated[Count, "Write SampledBatches(5), say."]
    replacement: Flag = False

    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return the examples that a step draws."""
        if key is None:
            fix = (
                "Pass it to a learner as support_batches=, or use the problem of one task: "
                "problem.of_task(key)."
            )
            raise invalid(f"support loss on {self}", "be given the task's key", "none", fix)
        key = key[..., None]
        if not tree_leaves(support.weight):
            num_examples = tree_leaves(support)[0].shape[axis]
            drawn = self._draw(key, step, num_examples, num_examples)
            rows = (torch.arange(len(drawn), device=key.device)[:, None],) * axis
            return tree_map(lambda leaf: leaf[(*rows, drawn)], support)
        is_there = support.weight > 0
        drawn = self._draw(key, step, is_there.shape[-1], is_there.sum(-1, keepdim=True))
        rank = is_there.cumsum(-1) - 1
        times = (rank[..., None, :] == drawn[..., None]).sum(-2)
        # Not zero for those left out: by the weights the criterion knows the task's classes.
        times = times.to(torch.promote_types(support.weight.dtype, torch.float32)).clamp(min=1e-30)
        return support._replace(weight=support.weight * times)

    def check(self, support: Batch) -> None:
        """Raise unless all tensors are of the same examples, and of enough."""
        leaves = tree_leaves(support)
        sizes = {leaf.shape[1] for leaf in leaves if leaf.dim() > 1}
        if len(sizes) != 1 or any(leaf.dim() < 2 for leaf in leaves):
            fix = "Leave support_batches out, or write a support_loss that draws."
            condition = "have one number of examples to draw from, [num_tasks, num_examples, ...]"
            raise invalid("support tensors", condition, [tuple(leaf.shape) for leaf in leaves], fix)
        if not self.replacement and self.size > (count := sizes.pop()):
            fix = (
                f"Write SampledBatches({count}), or SampledBatches({self.size}, replacement=True)."
            )
            raise invalid(
                "SampledBatches' size", f"be at most the {count} support examples", self.size, fix
            )

    def _draw(self, key: Tensor, step: int, num_places: int, num_examples: int | Tensor) -> Tensor:
        """Return the numbers of the drawn examples; of too few, some that are not there."""
        if self.replacement:
            return (uniform(key, (self.size,), step, dtype=torch.float64) * num_examples).long()
        order = uniform(key, (num_places,), step, dtype=torch.float64)
        is_there = torch.arange(num_places, device=key.device) < num_examples
        return torch.where(is_there, order, 1.0).argsort(stable=True)[..., : self.size]


def as_support_batches(support_batches: Any) -> SupportBatches | None:
    """Return what the argument of a learner means: None for the whole support set at every step."""
    if support_batches is None or isinstance(support_batches, SupportBatches):
        return support_batches
    condition = "be an int or a functional.SupportBatches"
    if isinstance(support_batches, bool) or not isinstance(support_batches, int):
        raise mistyped("support_batches", condition, brief(support_batches), FIX)
    return DealtBatches(support_batches)


def _largest_divisor(number: int, at_most: int) -> int:
    candidates: Iterable[int] = range(min(number, at_most), 0, -1)
    return next(divisor for divisor in candidates if number % divisor == 0)
