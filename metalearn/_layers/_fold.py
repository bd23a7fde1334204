"""Tasks as groups of channels, and which tensors the convolutions and norms here are for."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metalearn._derivatives import in_transform


def fold(x: Tensor) -> Tensor:
    """Return `[num_tasks, n, C, ...]` as `[n, num_tasks * C, ...]`."""
    return x.movedim(0, 1).flatten(1, 2)


def unfold(x: Tensor, num_tasks: int) -> Tensor:
    """Return `[n, num_tasks * C, ...]` as `[num_tasks, n, C, ...]`."""
    return x.unflatten(1, (num_tasks, -1)).movedim(1, 0)


def channels_last(images: Tensor) -> Tensor:
    """Return images `[n, C, H, W]`, or weights, in memory as `[n, H, W, C]`."""
    return images.contiguous(memory_format=torch.channels_last)


def on_cpu(x: Tensor, *params: Tensor | None) -> bool:
    """Return whether these are tensors for which our derivatives are faster than PyTorch's.

    So they are on CPUs, where alone they are measured, in full precision. Forward mode and transforms, such as `vmap`
    over many cotangents, are left to PyTorch.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and all(param is None or param.dtype == x.dtype for param in params)
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
        and not in_transform()
    )
