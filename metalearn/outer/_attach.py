"""A gradient that is already computed, handed to autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *leaves_then_gradients: Tensor) -> Tensor:
        half = len(leaves_then_gradients) // 2
        ctx.leaves = leaves_then_gradients[:half]
        # Saved tensors, not attributes: autograd frees them, and says so to whoever calls backward twice.
        ctx.save_for_backward(*leaves_then_gradients[half:])
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, loss_bar: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        pairs = zip(gradients, ctx.leaves, strict=True)
        bars = (_Once.apply(_lead(loss_bar, gradient) * gradient, leaf) for gradient, leaf in pairs)
        return (None, *bars, *[None] * len(gradients))


class _Once(torch.autograd.Function):
    """A gradient that depends on the leaf which it belongs to, by a derivative that nobody has computed.

    `torch.autograd.function.once_differentiable` would only refuse where the incoming gradient requires grad.
    """

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, leaf: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
        message = "trying to differentiate twice a function that was marked with @once_differentiable"
        raise RuntimeError(f"{message}: a meta-gradient is computed in the forward pass and has no graph.")


def _lead(loss_bar: Tensor, gradient: Tensor) -> Tensor:
    return loss_bar.reshape(loss_bar.shape + (1,) * (gradient.dim() - loss_bar.dim()))


def attach(loss: Tensor, leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return `loss` with `gradients` as its derivatives with respect to `leaves`.

    `backward` adds them to the leaves' `.grad` under autograd's usual rules: hooks run, gradients accumulate, a
    second backward raises, and so does differentiating twice. Losses `[n]` belong to independent learners, whose
    leaves are stacked along a first axis of n.
    """
    return _Attach.apply(loss, *leaves, *gradients)
