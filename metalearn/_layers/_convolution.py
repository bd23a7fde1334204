"""Convolutions whose second derivatives are as fast as the first.

PyTorch takes that of a grouped convolution, which per-task weights make, group by group.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from metalearn._layers import _products, _spread
from metalearn._layers._fold import (
    Geometry,
    are_ours,
    channels_last,
    left_to_pytorch,
    strictly_channels_last,
)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return `F.conv2d` of images `[n, C, H, W]`."""
    if not are_ours(x, weight, bias):
        return F.conv2d(x, weight, bias, *geometry)
    return _Convolution.apply(channels_last(x), channels_last(weight), bias, geometry)


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, weight)
        if x.device.type == "cuda" and _products.is_faster(x, weight, geometry):
            return _products.convolve_groups(x, weight, bias, geometry)
        return F.conv2d(strictly_channels_last(x), strictly_channels_last(weight), bias, *geometry)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return (*_pull(y_bar, x, weight, ctx.needs_input_grad[:3], ctx.geometry), None)


class _ConvolutionBackward(Function):
    """The needed cotangents of input, weight and bias: again convolutions, linear in each."""

    @staticmethod
    def forward(
        ctx: Any,
        y_bar: Tensor,
        x: Tensor,
        weight: Tensor,
        needed: tuple[bool, ...],
        geometry: Geometry,
    ) -> tuple[Tensor, ...]:
        ctx.needed, ctx.geometry = needed, geometry
        ctx.save_for_backward(y_bar, x, weight)
        ctx.set_materialize_grads(False)
        compute = _cotangents_on_gpu if x.device.type == "cuda" else _cotangents
        y_bar, x, weight = (strictly_channels_last(tensor) for tensor in (y_bar, x, weight))
        bars = compute(y_bar, x, weight, needed, geometry)
        return tuple(bar for bar, need in zip(bars, needed, strict=True) if need)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        y_bar, x, weight = ctx.saved_tensors
        given = iter(cotangents)
        x_dot, weight_dot, bias_dot = (next(given) if need else None for need in ctx.needed)
        to_y_bar, to_x, to_weight = None, None, None
        if weight_dot is not None:
            to_y_bar = convolve(x, weight_dot, bias_dot, ctx.geometry)
            (to_x, *_) = _pull(
                y_bar, x, weight_dot, (ctx.needs_input_grad[1], False, False), ctx.geometry
            )
        elif bias_dot is not None:
            to_y_bar = bias_dot[:, None, None].expand_as(y_bar)
        if x_dot is not None:
            pushed = convolve(x_dot, weight, None, ctx.geometry)
            to_y_bar = pushed if to_y_bar is None else to_y_bar + pushed
            (_, to_weight, _) = _pull(
                y_bar, x_dot, weight, (False, ctx.needs_input_grad[2], False), ctx.geometry
            )
        return to_y_bar, to_x, to_weight, None, None


def _pull(
    y_bar: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool], geometry: Geometry
) -> list[Tensor | None]:
    """Return the cotangents of input, weight and bias, None for those that are not needed."""
    if not any(needed):
        return [None, None, None]
    if left_to_pytorch():
        return list(_cotangents(y_bar, x, weight, needed, geometry))
    bars = iter(_ConvolutionBackward.apply(y_bar, x, weight, tuple(needed), geometry))
    return [next(bars) if need else None for need in needed]


def _cotangents(
    y_bar: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool], geometry: Geometry
) -> Any:
    """Return them by PyTorch's function, which has derivatives too."""
    stride, padding, dilation, groups = geometry
    options = weight.shape[:1], stride, padding, dilation, False, (0, 0), groups, needed
    return torch.ops.aten.convolution_backward(y_bar, x, weight, *options)


def _cotangents_on_gpu(
    y_bar: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool], geometry: Geometry
) -> Any:
    """Return them without a derivative, and those of groups by what is faster than cuDNN."""
    if _products.is_faster(x, weight, geometry) and not needed[0]:
        return None, *_products.cotangents_of_groups(y_bar, x, weight, geometry)
    spreads = needed[0] and _spread.is_faster(x, weight, geometry)
    theirs = needed[0] and not spreads, needed[1], False
    x_bar, weight_bar, _ = (
        _cotangents(y_bar, x, weight, theirs, geometry) if any(theirs) else (None, None, None)
    )
    if spreads:
        x_bar = _spread.input_cotangent(y_bar, x, weight, geometry)
    return x_bar, weight_bar, y_bar.sum((0, 2, 3)) if needed[2] else None
