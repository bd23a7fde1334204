"""Normalisation by a batch's own statistics, with a second derivative in few passes.

PyTorch's takes about thirty, and it has no third.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from metalearn._layers._fold import are_ours, channels_last, left_to_pytorch

EACH = (True, True, True)


def normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return `F.batch_norm` of inputs `[n, C, ...]` by their own statistics."""
    # PyTorch's kernel reads parameters that are expanded beyond their end.
    weight, bias = (None if param is None else param.contiguous() for param in (weight, bias))
    if x.numel() > x.shape[1] and are_ours(x, weight, bias):
        return _Normalise.apply(x, weight, bias, eps)
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


class _Normalise(Function):
    """y = w (x - m) s + b, with m the mean of a channel and s its inverse standard deviation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        values = _laid_out_as(x, x)
        ctx.eps = eps
        if x.device.type == "cuda":
            y, m, s = torch.ops.aten.native_batch_norm(
                values, weight, bias, None, None, True, 0.0, eps
            )
        else:
            # With channels last PyTorch's kernel adds up one float32 after the other, at 50 times
            # the rounding error.
            m = values.mean(other_axes(x))
            square = values - _each(m, x)
            square *= square
            var = square.mean(other_axes(x))
            s = (var + eps).rsqrt()
            y, *_ = torch.ops.aten.native_batch_norm(values, weight, bias, m, var, False, 0.0, eps)
        ctx.save_for_backward(x, weight, m, s)
        return y

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, m, s = ctx.saved_tensors
        bars = _pull(y_bar, x, weight, m, s, ctx.eps)
        return (
            *(bar if need else None for bar, need in zip(bars, ctx.needs_input_grad, strict=False)),
            None,
        )


class _NormaliseBackward(Function):
    """x_bar = w P(y_bar), weight_bar = sum y_bar z and bias_bar = sum y_bar.

    z = (x - m) s are the normalised inputs, n the number of values in a channel, and P v = s (v -
    sum v / n - z sum v z / n) is what their derivative, a symmetric map, makes of v.
    """

    @staticmethod
    def forward(
        ctx: Any, y_bar: Tensor, x: Tensor, weight: Tensor | None, m: Tensor, s: Tensor, eps: float
    ) -> Any:
        # without one PyTorch's kernel for GPUs fails
        w = torch.ones_like(m) if weight is None else weight
        tensors = _laid_out_as(y_bar, x), _laid_out_as(x, x), w
        bars = torch.ops.aten.native_batch_norm_backward(
            *tensors, None, None, m, s, True, eps, EACH
        )
        ctx.eps = eps
        ctx.save_for_backward(y_bar, x, weight, m, s, *bars[1:])
        return bars

    @staticmethod
    def backward(
        ctx: Any, x_dot: Tensor, weight_dot: Tensor, bias_dot: Tensor
    ) -> tuple[Tensor | None, ...]:
        # derivation: docs/devdocs/batch_norm.md
        y_bar, x, weight, m, s, y_bar_z, y_bar_sum = ctx.saved_tensors
        n, w = x.numel() // x.shape[1], torch.ones_like(m) if weight is None else weight
        pushed, x_dot_z, x_dot_sum = _pull(x_dot, x, weight, m, s, ctx.eps)  # w P(x_dot)
        pulled, *_ = _pull(y_bar, x, None, m, s, ctx.eps)  # P(y_bar)
        m, s = _statistics(x, m, s, ctx.eps)
        product = (x_dot * y_bar).sum(other_axes(x))
        inner = product - x_dot_sum * y_bar_sum / n - x_dot_z * y_bar_z / n
        scale, slope = weight_dot * s, w * s.pow(3) * inner / n
        to_y_bar = torch.addcmul(pushed + _each(bias_dot - scale * m, x), x, _each(scale, x))
        to_x = torch.addcmul(_each(slope * m, x), pushed, _each(-s * y_bar_z / n, x))
        to_x = torch.addcmul(to_x, pulled, _each(weight_dot - w * s * x_dot_z / n, x))
        to_x = torch.addcmul(to_x, x, _each(-slope, x))
        return to_y_bar, to_x, None if weight is None else s * inner, None, None, None


def _pull(y_bar: Tensor, x: Tensor, weight: Tensor | None, m: Tensor, s: Tensor, eps: float) -> Any:
    """Return the cotangents of input, weight and bias."""
    if not left_to_pytorch():
        return _NormaliseBackward.apply(y_bar, x, weight, m, s, eps)
    m, s = _statistics(x, m, s, eps)
    z, n = (x - _each(m, x)) * _each(s, x), x.numel() // x.shape[1]
    y_bar_z, y_bar_sum = (y_bar * z).sum(other_axes(x)), y_bar.sum(other_axes(x))
    scale = s if weight is None else s * weight
    x_bar = _each(scale, x) * (y_bar - _each(y_bar_sum / n, x) - z * _each(y_bar_z / n, x))
    return x_bar, y_bar_z, y_bar_sum


def _statistics(x: Tensor, m: Tensor, s: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return m and s, as functions of x if further derivatives are to be taken."""
    if not torch.is_grad_enabled():
        return m, s
    var, m = torch.var_mean(x, other_axes(x), correction=0)
    return m, (var + eps).rsqrt()


def other_axes(x: Tensor) -> list[int]:
    """Return all axes but that of the channels."""
    return [axis for axis in range(x.dim()) if axis != 1]


def _each(of_channel: Tensor, x: Tensor) -> Tensor:
    """Return numbers `[C]` so that they broadcast over the inputs."""
    return of_channel.reshape(-1, *[1] * (x.dim() - 2))


def _laid_out_as(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor in the layout of another one of the same shape."""
    last = (
        other.dim() == 4
        and other.is_contiguous(memory_format=torch.channels_last)
        and not other.is_contiguous()
    )
    return channels_last(tensor) if last else tensor.contiguous()
