"""Normalisation by a batch's own statistics, with a fast second derivative."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from metalearn.models._folding import fold, folds, laid_out_as, unfold

EACH = (True, True, True)


def normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return `F.batch_norm` of inputs `[n, C, ...]` by their own statistics, with weight and bias `[C]`."""
    if x.numel() > x.shape[1] and folds(x, weight, bias):
        return _Normalise.apply(x, weight, bias, eps)[0]
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


class _Normalise(Function):
    """y = w (x - m) s + b, where m is the mean of a channel and s the inverse of its standard deviation."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.aten.native_batch_norm(laid_out_as(x, x), weight, bias, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (x, weight, _, ctx.eps), (_, m, s) = inputs, output
        ctx.mark_non_differentiable(m, s)
        ctx.save_for_backward(x, weight, m, s)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        bars = _NormaliseBackward.apply(y_bar, *ctx.saved_tensors, ctx.eps)
        return (*(bar if need else None for bar, need in zip(bars, needed, strict=False)), None)

    @staticmethod
    def vmap(info: Any, axes: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        tensors = fold((x, weight, bias), axes[:3], info.batch_size, (1, 0, 0))
        return unfold(_Normalise.apply(*tensors, eps), info.batch_size, (1, 0, 0))


class _NormaliseBackward(Function):
    """x_bar = w P(y_bar), weight_bar = sum y_bar z and bias_bar = sum y_bar.

    z = (x - m) s are the normalised inputs, n the number of values in a channel, and P v = s (v - sum v / n -
    z sum v z / n) is what their derivative, a symmetric map, makes of v.
    """

    @staticmethod
    def forward(y_bar: Tensor, x: Tensor, weight: Tensor | None, m: Tensor, s: Tensor, eps: float) -> Any:
        tensors = laid_out_as(y_bar, x), laid_out_as(x, x), weight
        return torch.ops.aten.native_batch_norm_backward(*tensors, None, None, m, s, True, eps, EACH)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        (*tensors, ctx.eps), (_, *sums) = inputs, output
        ctx.save_for_backward(*tensors, *sums)

    @staticmethod
    def backward(ctx: Any, x_dot: Tensor, weight_dot: Tensor, bias_dot: Tensor) -> tuple[Tensor | None, ...]:
        y_bar, x, weight, m, s, y_bar_z, y_bar_sum = ctx.saved_tensors
        n, w = x.numel() // x.shape[1], torch.ones_like(m) if weight is None else weight
        pushed, x_dot_z, x_dot_sum = _NormaliseBackward.apply(x_dot, x, weight, m, s, ctx.eps)  # w P(x_dot)
        pulled, *_ = _NormaliseBackward.apply(y_bar, x, None, m, s, ctx.eps)  # P(y_bar)
        other = [axis for axis in range(x.dim()) if axis != 1]
        if torch.is_grad_enabled():  # a third derivative depends on x through these too
            var, m = torch.var_mean(x, other, correction=0)
            s = (var + ctx.eps).rsqrt()
        product = (laid_out_as(x_dot, x) * laid_out_as(y_bar, x)).sum(other)
        inner = product - x_dot_sum * y_bar_sum / n - x_dot_z * y_bar_z / n

        def each(of_channel: Tensor) -> Tensor:
            return of_channel.reshape(-1, *[1] * (x.dim() - 2))

        scale, slope = weight_dot * s, w * s.pow(3) * inner / n
        to_y_bar = torch.addcmul(pushed + each(bias_dot - scale * m), x, each(scale))
        to_x = torch.addcmul(each(slope * m), pushed, each(-s * y_bar_z / n))
        to_x = torch.addcmul(to_x, pulled, each(weight_dot - w * s * x_dot_z / n))
        to_x = torch.addcmul(to_x, x, each(-slope))
        return to_y_bar, to_x, None if weight is None else s * inner, None, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, *args: Any) -> Any:
        *tensors, eps = args
        tensors = fold(tensors, axes[:5], info.batch_size, (1, 1, 0, 0, 0))
        return unfold(_NormaliseBackward.apply(*tensors, eps), info.batch_size, (1, 0, 0))
