"""Convolutions with fast second derivatives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from metalearn.models._folding import channels_last, fold, folds, unfold


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, whose derivatives are fast where every task has a weight of its own.

    >>> Conv2d(1, 8, 3, padding=1)(torch.zeros(2, 1, 6, 6)).shape
    torch.Size([2, 8, 6, 6])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        simple = self.padding_mode == "zeros" and input.dim() == 4
        if isinstance(padding, str) or not (simple and folds(input, weight, bias)):
            return super()._conv_forward(input, weight, bias)
        return convolve(input, weight, bias, Geometry(self.stride, padding, self.dilation, self.groups))


class Geometry(NamedTuple):
    """What a convolution is told beside its tensors."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def of_tasks(self, num_tasks: int) -> "Geometry":
        """Return that of all tasks' convolutions as groups of one."""
        return self._replace(groups=self.groups * num_tasks)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return the convolution of images `[n, C, H, W]`, as `F.conv2d` does."""
    return _Convolution.apply(x, weight, bias, geometry)


class _Convolution(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        return F.conv2d(channels_last(x), weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return (*_pull(y_bar, x, weight, ctx.needs_input_grad[:3], ctx.geometry), None)

    @staticmethod
    def vmap(info: Any, axes: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Any:
        x, weight, bias = fold((x, weight, bias), axes[:3], info.batch_size, (1, 0, 0))
        y = convolve(channels_last(x), channels_last(weight), bias, geometry.of_tasks(info.batch_size))
        return y.unflatten(1, (info.batch_size, -1)), 1


def _pull(y_bar: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool], geometry: Geometry) -> list[Tensor | None]:
    """Return the cotangents of input, weight and bias, None for those that are not needed."""
    if not any(needed):
        return [None, None, None]
    bars = iter(_ConvolutionBackward.apply(y_bar, x, weight, tuple(needed), geometry))
    return [next(bars) if need else None for need in needed]


class _ConvolutionBackward(Function):
    """Those cotangents that are needed; a sum of convolutions again, each linear in all that it is made of."""

    @staticmethod
    def forward(y_bar: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...], geometry: Geometry) -> Any:
        stride, padding, dilation, groups = geometry
        bars = torch.ops.aten.convolution_backward(
            channels_last(y_bar),
            channels_last(x),
            weight,
            weight.shape[:1],
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            needed,
        )
        return tuple(bar for bar, need in zip(bars, needed, strict=True) if need)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.needed, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        y_bar, x, weight = ctx.saved_tensors
        given = iter(cotangents)
        x_dot, weight_dot, bias_dot = (next(given) if need else None for need in ctx.needed)
        to_y_bar, to_x, to_weight = None, None, None
        if weight_dot is not None:
            to_y_bar = convolve(x, weight_dot, bias_dot, ctx.geometry)
            (to_x, *_) = _pull(y_bar, x, weight_dot, (ctx.needs_input_grad[1], False, False), ctx.geometry)
        elif bias_dot is not None:
            to_y_bar = bias_dot[:, None, None].expand_as(y_bar)
        if x_dot is not None:
            pushed = convolve(x_dot, weight, None, ctx.geometry)
            to_y_bar = pushed if to_y_bar is None else to_y_bar + pushed
            (_, to_weight, _) = _pull(y_bar, x_dot, weight, (False, ctx.needs_input_grad[2], False), ctx.geometry)
        return to_y_bar, to_x, to_weight, None, None

    @staticmethod
    def vmap(
        info: Any, axes: Any, y_bar: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, ...], geometry: Geometry
    ) -> Any:
        tensors = fold((y_bar, x, weight), axes[:3], info.batch_size, (1, 1, 0))
        bars = _ConvolutionBackward.apply(*tensors, needed, geometry.of_tasks(info.batch_size))
        at = [axis for axis, need in zip((1, 0, 0), needed, strict=True) if need]
        return unfold(bars, info.batch_size, at)
