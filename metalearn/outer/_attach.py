"""A gradient that is already computed, handed to autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *leaves_then_gradients: Tensor) -> Tensor:
        # Saved tensors, not attributes: autograd frees them, and says so to whoever calls backward twice.
        ctx.save_for_backward(*leaves_then_gradients[len(leaves_then_gradients) // 2 :])
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, loss_bar: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return (None, *(loss_bar * gradient for gradient in gradients), *[None] * len(gradients))


def attach(loss: Tensor, leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return `loss` with `gradients` as its derivatives with respect to `leaves`.

    `backward` adds them to the leaves' `.grad` under autograd's usual rules: hooks run, gradients accumulate, a
    second backward raises, and so does differentiating twice.
    """
    return _Attach.apply(loss, *leaves, *gradients)
