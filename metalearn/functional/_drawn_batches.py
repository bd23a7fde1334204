"""Mini-batches of a task's support examples, drawn by the task's key."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import Checked, Count, Flag
from metalearn._tree import tree_leaves
from metalearn.functional._keys import derive_key, uniform
from metalearn.functional._support_batches import SupportBatches, chosen
from metalearn.types import Batch


@dataclass(frozen=True)
class DrawnBatches(SupportBatches, Checked):
    """Mini-batches that a subclass draws, of tasks that may be padded.

    Of a padded task, whose examples have weights, a step sees all examples, those that are not
    drawn with weights of next to nothing, and so what it would see of the task without padding.
    """

    _what = "{own}' {field}"

    size: Annotated[Count, "Write {own}(5), say."]

    @abstractmethod
    def draw(self, key: Tensor, step: int, num_places: int, num_examples: int | Tensor) -> Tensor:
        """Return the numbers of the examples that a step draws.

        Args:
            key: The task's key `[1]`, or `[num_tasks, 1]`.
            step: Number of the step.
            num_places: Number of examples with padding.
            num_examples: That without, where tasks are padded a tensor shaped as the key. Numbers
                from there on, and below zero, are of no example.
        """

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
            count = tree_leaves(support)[0].shape[axis]
            return chosen(support, self.draw(key, step, count, count), axis)
        is_there = support.weight > 0
        num_examples = is_there.sum(-1, keepdim=True).clamp(min=1)
        drawn = self.draw(key, step, is_there.shape[-1], num_examples)
        rank = is_there.cumsum(-1) - 1
        times = (rank[..., None, :] == drawn[..., None]).sum(-2)
        # Not zero for those left out: by the weights the criterion knows the task's classes.
        times = times.to(torch.promote_types(support.weight.dtype, torch.float32)).clamp(min=1e-30)
        return support._replace(weight=support.weight * times)

    def check(self, support: Batch) -> None:
        """Raise unless all tensors are of the same examples."""
        leaves = tree_leaves(support)
        if len({leaf.shape[1:2] for leaf in leaves}) != 1 or any(leaf.dim() < 2 for leaf in leaves):
            fix = "Leave support_batches out, or write a support_loss that draws."
            condition = "have one number of examples to draw from, [num_tasks, num_examples, ...]"
            raise invalid("support tensors", condition, [tuple(leaf.shape) for leaf in leaves], fix)


@dataclass(frozen=True)
class SampledBatches(DrawnBatches):
    """Mini-batches that every step draws anew from the whole support set, by the task's key.

    The same key draws the same examples however tasks are batched, and as often as a step is
    computed. Tasks of different sizes, padded with weights, see what they would without padding, at
    the cost of the largest one's examples.

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

    replacement: Flag = False

    def draw(self, key: Tensor, step: int, num_places: int, num_examples: int | Tensor) -> Tensor:
        """Return independent draws."""
        if self.replacement:
            return (uniform(key, (self.size,), step, dtype=torch.float64) * num_examples).long()
        return _order(key, step, num_places, num_examples)[..., : self.size]

    def check(self, support: Batch) -> None:
        """Raise unless all tensors are of the same examples, and of enough."""
        super().check(support)
        if not self.replacement and self.size > (count := tree_leaves(support)[0].shape[1]):
            fix = (
                f"Write SampledBatches({count}), or SampledBatches({self.size}, replacement=True)."
            )
            raise invalid(
                "SampledBatches' size", f"be at most the {count} support examples", self.size, fix
            )


@dataclass(frozen=True)
class ShuffledBatches(DrawnBatches):
    """Mini-batches of epochs, as those of a shuffling `DataLoader`, by the task's key.

    Every example comes once an epoch, whose last mini-batch may be smaller, and every epoch has an
    order of its own: e epochs of n examples are `num_steps = e * ceil(n / size)`. Tasks of
    different sizes, padded with weights, have epochs of different lengths, and see what they would
    without padding, at the cost of the largest one's examples.

    Args:
        size: Number of examples in a mini-batch, at least 1; of a task with fewer, all.

    Raises:
        TypeError: If `size` is no int.
        ValueError: If `size` is below 1.

    >>> batches, support, key = ShuffledBatches(2), Batch(torch.arange(5)), torch.tensor(7)
    >>> epoch = [batches.of_step(support, key, step).x for step in range(3)]
    >>> [len(part) for part in epoch], torch.cat(epoch).sort().values
    ([2, 2, 1], tensor([0, 1, 2, 3, 4]))
    """

    def draw(self, key: Tensor, step: int, num_places: int, num_examples: int | Tensor) -> Tensor:
        """Return the part of the epoch's order whose turn it is."""
        num_batches = (num_examples + self.size - 1) // self.size
        # The number of a padded task's epoch is a tensor, unlike a stream.
        epoch, first = step // num_batches, step % num_batches * self.size
        order = _order(derive_key(key) + epoch, 0, num_places, num_examples)
        if isinstance(first, int):
            return order[..., first : first + self.size]
        places = first + torch.arange(self.size, device=key.device)
        drawn = order.gather(-1, places.clamp(max=num_places - 1))
        return torch.where(places < num_examples, drawn, -1)


def _order(key: Tensor, stream: int, num_places: int, num_examples: int | Tensor) -> Tensor:
    """Return the numbers of all examples in a random order, those that are not there last."""
    order = uniform(key, (num_places,), stream, dtype=torch.float64)
    is_there = torch.arange(num_places, device=key.device) < num_examples
    return torch.where(is_there, order, 1.0).argsort(stable=True)
