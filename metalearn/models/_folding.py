"""Layers of images whose weights are a task's own: tasks become groups of channels, and channels come last.

PyTorch's `vmap` makes the same grouped convolutions. What costs on a CPU is their second derivative, taken group by
group, that of batch normalisation, some thirty passes over its input, and a layout that kernels convert.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def folds(x: Tensor, *params: Tensor | None) -> bool:
    """Return whether the layers here take these tensors, or leave them to PyTorch's.

    Theirs are for CPUs, the only device that they are measured on, for one precision, and not to be compiled, where
    kernels are fused anyway, or differentiated forwards.
    """
    same = all(param is None or param.dtype == x.dtype for param in params)
    return (
        not torch.compiler.is_compiling()
        and same
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
    )


def fold(tensors: Sequence[Any], task_axes: Sequence[int | None], num_tasks: int, at: Sequence[int]) -> list[Any]:
    """Return tensors whose tasks are groups along the axes `at`, as a rule of `vmap` gets them.

    One without tasks is repeated for each; one that is None remains so.
    """
    return [_fold(*each, num_tasks) for each in zip(tensors, task_axes, at, strict=True)]


def _fold(tensor: Tensor | None, task_axis: int | None, at: int, num_tasks: int) -> Tensor | None:
    if tensor is None:
        return None
    if task_axis is None:
        tensor, task_axis = tensor.expand(num_tasks, *tensor.shape), 0
    return tensor.movedim(task_axis, at).flatten(at, at + 1)


def unfold(tensors: Sequence[Tensor], num_tasks: int, at: Sequence[int]) -> tuple[Any, Any]:
    """Return tensors whose groups along the axes `at` are tasks with an axis for these, and where it is."""
    unfolded = [tensor.unflatten(axis, (num_tasks, -1)) for tensor, axis in zip(tensors, at, strict=True)]
    return tuple(unfolded), tuple(at)


def channels_last(images: Tensor) -> Tensor:
    """Return images, or weights, in memory as `[n, H, W, C]`."""
    return images.contiguous(memory_format=torch.channels_last)


def laid_out_as(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor in the layout of another one of the same shape."""
    last = other.dim() == 4 and other.is_contiguous(memory_format=torch.channels_last) and not other.is_contiguous()
    return channels_last(tensor) if last else tensor.contiguous()
