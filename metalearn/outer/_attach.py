"""A gradient that is already computed, handed to autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metalearn._tree import over_first_axes, tree_leaves
from metalearn.types import Meta


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor, ...], *leaves: Tensor) -> Tensor:
        ctx.leaves = leaves
        # Saved tensors, not attributes: autograd frees them, and says so to whoever calls backward
        # twice.
        ctx.save_for_backward(*gradients)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, loss_bar: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, None, *_Once.apply(loss_bar, *ctx.leaves, *gradients))
        return (None, None, *_scaled(gradients, loss_bar))


class _Once(torch.autograd.Function):
    """Gradients whose own derivative by the leaves nobody has computed.

    `torch.autograd.function.once_differentiable` would only refuse where the incoming gradient
    requires grad.
    """

    @staticmethod
    def forward(ctx: Any, loss_bar: Tensor, *leaves_then_gradients: Tensor) -> tuple[Tensor, ...]:
        return _scaled(leaves_then_gradients[len(leaves_then_gradients) // 2 :], loss_bar)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        message = (
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
        raise RuntimeError(
            f"{message}: a meta-gradient is computed in the forward pass and has no graph."
        )


def _scaled(gradients: tuple[Tensor, ...], loss_bar: Tensor) -> tuple[Tensor, ...]:
    if loss_bar.dim() == 0 and not _is_traced_or_batched(loss_bar):
        return tuple(torch._foreach_mul(gradients, loss_bar))  # one launch on a GPU
    return tuple(over_first_axes(loss_bar, gradient) * gradient for gradient in gradients)


def _is_traced_or_batched(loss_bar: Tensor) -> bool:
    """Return whether `torch.compile` traces this, or autograd batches cotangents."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_legacy_batchedtensor(loss_bar)


def refuse_forward_mode(meta: Meta) -> None:
    """Raise if a forward-mode derivative is taken of what is learned: it would be lost."""
    is_on = forward_ad._current_level >= 0
    if is_on and any(
        forward_ad.unpack_dual(leaf).tangent is not None for leaf in tree_leaves(meta)
    ):
        raise RuntimeError(
            "A learner's loss has no forward-mode derivative: call backward, or learner.estimate."
        )


def attach(loss: Tensor, meta: Meta, gradient: Meta) -> Tensor:
    """Return `loss` with `gradient` as its derivative with respect to what requires grad in `meta`.

    The dicts of both have the same order.
    `backward` adds it to the leaves' `.grad` under autograd's usual rules: hooks run, gradients
    accumulate, a second backward raises, and so does differentiating twice. Losses `[n]` belong to
    independent learners, whose leaves are stacked along a first axis of n.
    """
    pairs = zip(tree_leaves(meta), tree_leaves(gradient), strict=True)
    leaves, gradients = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
    return _Attach.apply(loss, gradients, *leaves)
