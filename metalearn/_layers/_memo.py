"""What the first layers made of their inputs, so that an inner loop need not repeat it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metalearn._modes import is_captured


class Memo:
    """The last result of a computation, for as long as it is of the same tensors.

    Args:
        keeps_graphs: Whether results with a graph are kept too, whose users then share it.
    """

    def __init__(self, keeps_graphs: bool = False) -> None:
        self._keeps_graphs = keeps_graphs
        self._tensors: Sequence[Tensor] = ()
        self._how: tuple[int | None, ...] = ()
        self._result: Tensor | None = None

    def recall(self, tensors: Sequence[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """Return what is computed of these tensors, anew if they are others or were written to."""
        if is_captured():
            return compute()
        how = torch.is_grad_enabled(), *map(_version, tensors)
        known = how == self._how and all(map(_are_same, self._tensors, tensors))
        if self._result is not None and known:
            return self._result
        self._result = None  # before the next one takes its memory
        result = compute()
        if self._keeps_graphs or not result.requires_grad:
            self._result, self._tensors, self._how = result, tensors, how
        return result


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor has been written to; None of one that does not count it."""
    return None if tensor.is_inference() else tensor._version


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Return whether these are one tensor, or numbers in one place that nothing depends on."""
    if one is other:
        return True
    if one.requires_grad or other.requires_grad or one.is_inference():
        return False
    place, other_place = (
        (each.data_ptr(), each.shape, each.stride(), each.dtype) for each in (one, other)
    )
    return place == other_place
