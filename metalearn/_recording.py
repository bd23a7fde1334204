"""Kernels recorded once as a CUDA graph and replayed without host time between them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn._tree import tree_leaves, tree_map

WARM_UPS = 2
"""Runs before the recording, in which libraries allocate memory and compilation happens."""


class Recording:
    """A function's kernels on a GPU, with fixed memory for inputs and outputs.

    Every replay draws new random numbers, the ones that the function would draw.

    Args:
        function: Takes the arguments; returns a tree of tensors.
        args: Trees of tensors and of values that are the same at every replay.
        device: The GPU.

    Raises:
        RuntimeError: If the function waits for the GPU, or copies from the host.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], device: torch.device
    ) -> None:
        self._device = device
        inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, args)
        self._inputs = _by_dtype(_tensors(inputs))
        with torch.cuda.device(device):
            here, side = torch.cuda.current_stream(), torch.cuda.Stream()
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            drawn = generator.get_state()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function(*inputs)
            here.wait_stream(side)
            generator.set_state(drawn)
            self._graph = torch.cuda.CUDAGraph()
            before = generator.clone_state()
            try:
                with torch.cuda.stream(here), torch.cuda.graph(self._graph, stream=side):
                    self._tree = function(*inputs)
            except RuntimeError:
                # PyTorch leaves it waiting for the end of the recording
                generator.graphsafe_set_state(before)
                raise
            # PyTorch resets the generator there, which must come before the first replay sets it
            here.wait_stream(side)
        outputs = tree_leaves(self._tree)
        self._outputs, self._num_outputs = _by_dtype(outputs), len(outputs)

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """Return the function's result for arguments with these tensors, in new memory."""
        copies: list[Any] = [None] * self._num_outputs
        with torch.cuda.device(self._device):
            for places, targets in self._inputs:
                torch._foreach_copy_(targets, [tensors[place] for place in places])
            self._graph.replay()
            for places, sources in self._outputs:  # copied, since the next replay overwrites them
                for place, copy in zip(places, _copies(sources), strict=True):
                    copies[place] = copy
        left = iter(copies)
        return tree_map(lambda _: next(left), self._tree)


def _tensors(tree: Any) -> list[Tensor]:
    """Return a tree's tensors without its other leaves."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _by_dtype(tensors: Sequence[Tensor]) -> list[tuple[list[int], list[Tensor]]]:
    """Group tensors and their places by dtype, since one launch copies each group."""
    places: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.dtype, []).append(place)
    return [(of_dtype, [tensors[place] for place in of_dtype]) for of_dtype in places.values()]


def _copies(tensors: list[Tensor]) -> Sequence[Tensor]:
    if tensors[0].is_floating_point():
        return torch._foreach_mul(tensors, 1.0)  # allocates and copies in one call
    return [tensor.clone() for tensor in tensors]
