"""A step whose kernels are recorded once, as a CUDA graph, and replayed: the host takes no time between them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._tree import tree_leaves, tree_map
from metalearn._walk import each_module

NOTE = (
    "This learner's meta-step cannot be recorded as a CUDA graph: what is named above waits for the GPU or copies from"
    " the host. Run it without: learner.set_batching(cuda_graph=False)."
)
WARM_UPS = 2
"""Runs before the recording, in which libraries allocate and choose, and a compiled function is compiled."""


class Recorded:
    """A function of a learner and of trees of tensors on its GPU, replayed with the tensors that it is given.

    It is recorded anew for other shapes, problems, estimators, modes of modules, or places of constants. Whatever else
    it does on the host happens at the recording alone.

    Args:
        function: Called with the learner and the trees; returns a tree of tensors.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._graphs: dict[Any, _Graph] = {}
        self._kept: list[Any] = []

    def __call__(self, learner: Any, *args: Any) -> Any:
        """Return what the function returns, in memory of its own."""
        kinds = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(args))
        method = learner.problem, learner.estimator
        precision = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = kinds, *map(id, method), *precision, *_state(learner)
        with torch.cuda.device(learner.device):
            if key not in self._graphs:
                self._graphs[key] = _Graph(partial(self._function, learner), args)
                self._kept.append(method)  # so that their numbers are not given to others
            return self._graphs[key](args)


class _Graph:
    """The function's kernels, between fixed places for what goes in and what comes out."""

    def __init__(self, function: Callable[..., Any], args: Any) -> None:
        inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, args)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        before = generator.clone_state()
        try:
            with torch.cuda.graph(self._graph):
                self._outputs = function(*inputs)
        except RuntimeError as error:
            generator.graphsafe_set_state(before)  # for PyTorch leaves it waiting for the end of the recording
            error.add_note(NOTE)
            raise
        self._inputs = _tensors(inputs)

    def __call__(self, args: Any) -> Any:
        _copy(self._inputs, _tensors(args))
        self._graph.replay()
        copies = tree_map(torch.empty_like, self._outputs)  # the next replay overwrites the outputs
        _copy(tree_leaves(copies), tree_leaves(self._outputs))
        return copies


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


def _state(learner: nn.Module) -> tuple[Any, ...]:
    """Return the modules' modes, and where their constants are: all that is read beside the arguments."""
    modules = list(each_module(*(child for name, child in learner.named_children() if name != "carry")))
    tensors = (tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values()))
    constants = (tensor.data_ptr() for tensor in tensors if tensor is not None and not tensor.requires_grad)
    return *(module.training for module in modules), *constants
