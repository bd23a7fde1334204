"""A step whose kernels are recorded once, as a CUDA graph, and replayed: the host takes no time between them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._tree import tree_flatten, tree_leaves, tree_map
from metalearn._walk import modules_of

NOTE = (
    "This learner's meta-step cannot be recorded as a CUDA graph: what is named above waits for the GPU or copies from"
    " the host. Run it without: learner.set_batching(cuda_graph=False)."
)
WARM_UPS = 2
"""Runs before the recording, in which libraries allocate and choose, and a compiled function is compiled."""


class Recorded:
    """A function of a learner and of trees of tensors on its GPU, replayed with the tensors that it is given.

    There is a recording for every structure of the trees, precision and mode of the modules. It is made anew when the
    learner has another problem or estimator, or constants elsewhere. Whatever else the function does on the host
    happens at the recording alone.

    Args:
        function: Called with the learner and the trees; returns a tree of tensors.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._recordings: dict[Any, tuple[Any, Any, Any, Recording]] = {}

    def __call__(self, learner: Any, *args: Any) -> Any:
        """Return what the function returns, in memory of its own."""
        modules = list(modules_of(learner))
        kind = _kind(args), learner.device, _precision(), *((type(module), module.training) for module in modules)
        problem, estimator, places = learner.problem, learner.estimator, _places_of_constants(modules)
        of_problem, of_estimator, of_places, recording = self._recordings.get(kind, (None, None, None, None))
        if recording is None or of_problem is not problem or of_estimator is not estimator or of_places != places:
            recording = None
            self._recordings.pop(kind, None)  # so that its memory is free before the next one takes its own
            recording = Recording(partial(self._function, learner), args, learner.device)
            self._recordings[kind] = problem, estimator, places, recording
        return recording(args)


class Recording:
    """The function's kernels, between fixed places for what goes in and what comes out."""

    def __init__(self, function: Callable[..., Any], args: Any, device: torch.device) -> None:
        self._device = device
        inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, args)
        self._inputs = _tensors(inputs)
        with torch.cuda.device(device):
            here, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function(*inputs)
            here.wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            before = generator.clone_state()
            try:
                with torch.cuda.stream(here), torch.cuda.graph(self._graph, stream=side):
                    self._outputs = function(*inputs)
            except RuntimeError as error:
                generator.graphsafe_set_state(before)  # for PyTorch leaves it waiting for the end of the recording
                if not isinstance(error, torch.OutOfMemoryError):
                    error.add_note(NOTE)
                raise

    def __call__(self, args: Any) -> Any:
        with torch.cuda.device(self._device):
            _copy(self._inputs, _tensors(args))
            self._graph.replay()
            copies = tree_map(torch.empty_like, self._outputs)  # the next replay overwrites the outputs
            _copy(tree_leaves(copies), tree_leaves(self._outputs))
        return copies


def _kind(tree: Any) -> Any:
    """Return a tree's structure, its tensors' shapes and dtypes, and its other leaves."""
    if isinstance(tree, Tensor):
        return tree.shape, tree.dtype
    if type(tree) is dict:
        return tuple((name, _kind(part)) for name, part in tree.items())
    if isinstance(tree, tuple):
        return type(tree), *map(_kind, tree)
    leaves, structure = tree_flatten(tree)
    return tree if structure.is_leaf() else (structure, *map(_kind, leaves))


def _precision() -> tuple[Any, ...]:
    """Return the global settings by which PyTorch chooses kernels."""
    autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    return *autocast, *tf32, torch.are_deterministic_algorithms_enabled()


def _places_of_constants(modules: list[nn.Module]) -> tuple[int, ...]:
    """Return where the parameters and buffers are that are read beside the arguments."""
    tensors = (tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values()))
    return tuple(tensor.data_ptr() for tensor in tensors if tensor is not None and not tensor.requires_grad)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _copy(to: list[Tensor], of: list[Tensor]) -> None:
    """Copy tensors, in one launch for each dtype."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(to, of, strict=True):
        targets, sources = by_dtype.setdefault(target.dtype, ([], []))
        targets.append(target)
        sources.append(source)
    for targets, sources in by_dtype.values():
        torch._foreach_copy_(targets, sources)
