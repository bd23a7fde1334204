"""Derivatives of functions of tensors, to compare one implementation with another."""

import torch


def third(function, args):
    """Return the gradients of something of the gradients of something of the gradients."""
    value = function(*args).sin().sum()
    for create in (True, True, False):
        grads = torch.autograd.grad(value, args, create_graph=create, materialize_grads=True)
        value = sum(
            (each.sin() * torch.arange(each.numel(), device=each.device).reshape(each.shape)).sum()
            for each in grads
        )
    return grads


def of_many_cotangents(function, args, *, further):
    """Return what many cotangents at once, as `Implicit(solver=Direct())` takes them, are pulled
    back to.

    Through the function, to all arguments, and through its gradient to the first argument, to the
    first two; and the gradients of something of all these, if there are to be further derivatives.
    """
    torch.manual_seed(0)
    y = function(*args)
    (first,) = torch.autograd.grad(y.sin().sum(), args[0], create_graph=True)
    y_bars, x_bars = (torch.randn(3, *each.shape, dtype=each.dtype) for each in (y, first))

    def pull(y_bar, x_bar):
        options = {"retain_graph": True, "create_graph": further}
        back = torch.autograd.grad(y, args, y_bar, **options)
        return back, torch.autograd.grad(first, args[:2], x_bar, **options)

    leaves = [leaf for part in torch.func.vmap(pull)(y_bars, x_bars) for leaf in part]
    if further:
        leaves += torch.autograd.grad(sum(leaf.sin().sum() for leaf in leaves), args)
    return leaves
