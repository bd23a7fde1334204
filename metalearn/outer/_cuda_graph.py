"""A learner's step as a CUDA graph, recorded for all that it depends on but tensors' values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._recording import Recording
from metalearn._tree import tree_flatten
from metalearn._walk import modules_of
from metalearn.outer._estimates import Setup

NOTE = (
    "This meta-step cannot be recorded as a CUDA graph: "
    "what is named above waits for the GPU or copies from the host."
    " Run it without: call set_batching again, without cuda_graph."
)


class Recorded:
    """A function of a learner and of trees of tensors on its GPU, replayed with other tensors.

    There is a recording for every structure of the trees, precision and mode of the modules. It is
    made anew when the learner has another problem or estimator, or constants elsewhere. Whatever
    else the function does on the host happens at the recording alone.

    Args:
        function: Called with the learner and the trees; returns a tree of tensors.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._recordings: dict[Any, tuple[Any, Recording]] = {}

    def __call__(self, learner: Any, *args: Any) -> Any:
        """Return what the function returns, in memory of its own."""
        tensors: list[Tensor] = []
        kinds, modes, places = _read(args, tensors), [], []
        for module in modules_of(learner):
            modes.append((type(module), module.training))
            places += _places_of_constants(module)
        key = kinds, learner.device, *_precision(), *modes
        now = learner.problem, learner.estimator, places
        then, recording = self._recordings.get(key, (None, None))
        if recording is None or not _are_same(then, now):
            recording = None
            # so that its memory is free before the next one takes its own
            self._recordings.pop(key, None)
            recording = _record(partial(self._function, learner), args, learner.device)
            self._recordings[key] = now, recording
        return recording(tensors)


def _record(function: Callable[..., Any], args: Any, device: torch.device) -> Recording:
    try:
        return Recording(function, args, device)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError):
            error.add_note(NOTE)
        raise


def _are_same(then: Any, now: Any) -> bool:
    """Return whether problem and estimator are the same, and constants in the same places."""
    return then[0] is now[0] and then[1] is now[1] and then[2] == now[2]


def _read(tree: Any, tensors: list[Tensor]) -> Any:
    """Collect a tree's tensors; return its structure, their shapes and dtypes, and other leaves."""
    if isinstance(tree, Setup):
        return tree.how, tree.num_tasks
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return tree.shape, tree.dtype
    if type(tree) is dict:
        return tuple([(name, _read(part, tensors)) for name, part in tree.items()])
    if isinstance(tree, tuple):
        return type(tree), *[_read(part, tensors) for part in tree]
    leaves, structure = tree_flatten(tree)
    return tree if structure.is_leaf() else (structure, *[_read(leaf, tensors) for leaf in leaves])


def _precision() -> tuple[Any, ...]:
    """Return the global settings by which PyTorch chooses kernels."""
    autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    return *autocast, *tf32, torch.are_deterministic_algorithms_enabled()


def _places_of_constants(module: nn.Module) -> list[int]:
    """Return where a module's own parameters and buffers are that are read beside the arguments."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    return [
        tensor.data_ptr() for tensor in tensors if tensor is not None and not tensor.requires_grad
    ]
