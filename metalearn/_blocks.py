"""Blocks of a model that are computed again in backward passes, in the second one too.

`torch.utils.checkpoint` has no second derivative, and sees a module's own parameters in the
backward pass. Here a block and the pull-back through it are functions of autograd that keep their
arguments alone, and are computed again for their own derivatives: of a backward pass through a
backward pass only one block's graph is alive at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd import Function

from metalearn._checks import message
from metalearn._modes import in_transform
from metalearn._random import Draws
from metalearn._tree import tree_flatten, tree_unflatten

_PATTERN: ContextVar[str] = ContextVar("blocks", default="")


def by_blocks(loss: Callable[..., Any], pattern: str) -> Callable[..., Any]:
    """Return a loss whose model has the blocks that match a pattern."""

    def called(*args: Any) -> Any:
        token = _PATTERN.set(pattern)
        try:
            return loss(*args)
        finally:
            _PATTERN.reset(token)

    return called


def has_blocks() -> bool:
    """Return whether a model that is called now may have blocks."""
    return bool(_PATTERN.get())


def blocks_of(module: nn.Module, pattern: str) -> list[nn.Module]:
    """Return the modules whose names match a pattern, but for those within others."""
    found: dict[str, nn.Module] = {}
    for path, block in module.named_modules():
        within = any(path.startswith(f"{outer}.") for outer in found)
        if path and not within and fnmatchcase(path, pattern):
            found[path] = block
    return list(found.values())


@contextmanager
def blocks_called_again(module: nn.Module) -> Iterator[None]:
    """Let the blocks of a module that is called in this context be computed again afterwards."""
    pattern = _PATTERN.get()
    blocks = blocks_of(module, pattern) if pattern and torch.is_grad_enabled() else []
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = partial(_called, _Holder(block, block.forward))
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


class _Holder(nn.Module):
    """A block whose forward is what it was, whatever takes its place in the block."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.block, self.forward = block, forward


def _called(holder: _Holder, *args: Any, **kwargs: Any) -> Any:
    """Call a block as a function of tensors that keeps its arguments alone."""
    if in_transform():
        got, fix = "torch.func, or what is compiled", "Use outer.Stepwise() without blocks."
        raise NotImplementedError(message("blocks", "be computed by plain autograd", got, fix))
    own: dict[str, Tensor] = dict(holder.named_parameters(remove_duplicate=False))
    own |= holder.named_buffers(remove_duplicate=False)
    names, (leaves, structure) = tuple(own), tree_flatten((args, kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    given = [*own.values(), *(leaves[place] for place in places)]
    others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    made: list[Any] = []

    def function(*tensors: Tensor) -> list[Tensor]:
        inputs = list(others)
        for place, tensor in zip(places, tensors[len(names) :], strict=True):
            inputs[place] = tensor
        replaced = dict(zip(names, tensors, strict=False))
        outputs = torch.func.functional_call(holder, replaced, *tree_unflatten(inputs, structure))
        flat, spec = tree_flatten(outputs)
        made[:] = [spec]
        return flat

    return tree_unflatten(list(_Block.apply(function, *given)), made[0])


class _Block(Function):
    """A function of tensors, which is computed again for its derivative."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *inputs: Tensor) -> Any:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        with Draws(inputs[0].device) as ctx.draws:
            outputs = function(*inputs)
        ctx.mark_non_differentiable(*(each for each in outputs if not each.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        wanted = ctx.needs_input_grad[1:]
        again = partial(_graph, ctx.function, ctx.draws, wanted)
        return None, *_PullBack.apply(again, len(bars), *bars, *ctx.saved_tensors)


class _PullBack(Function):
    """The cotangents of a function's inputs by those of its outputs, and its own derivative."""

    @staticmethod
    def forward(ctx: Any, again: Callable[..., Any], count: int, *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.again, ctx.count = again, count
        ctx.save_for_backward(*tensors)
        return _pulled(again, tensors[:count], tensors[count:])[1]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            got, fix = "the graph of a third", "Use outer.Stepwise() without blocks."
            raise RuntimeError(message("derivatives by blocks", "be two", got, fix))
        bars, inputs = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        bars = [bar.detach().requires_grad_(bar.is_floating_point()) for bar in bars]
        leaves, grads = _pulled(ctx.again, bars, inputs, create_graph=True)
        return None, None, *_grads(grads, slopes, [*bars, *leaves])


def _graph(
    function: Callable[..., Any], draws: Draws, wanted: Sequence[bool], inputs: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Compute a function again; return its inputs as they are differentiated, and outputs."""
    pairs = zip(inputs, wanted, strict=True)
    leaves = [tensor.detach().requires_grad_(is_wanted) for tensor, is_wanted in pairs]
    with torch.enable_grad(), draws.again():
        return leaves, function(*leaves)


def _pulled(
    again: Callable[..., Any],
    bars: Sequence[Tensor],
    inputs: Sequence[Tensor],
    create_graph: bool = False,
) -> tuple[list[Tensor], tuple[Tensor | None, ...]]:
    """Return inputs as they are differentiated, and their cotangents."""
    leaves, outputs = again(inputs)
    return leaves, _grads(outputs, bars, leaves, create_graph)


def _grads(
    outputs: Sequence[Tensor | None],
    bars: Sequence[Tensor | None],
    leaves: Sequence[Tensor],
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the cotangents of leaves by those of outputs; None where there is nothing to pull."""
    pairs = [
        (output, bar)
        for output, bar in zip(outputs, bars, strict=True)
        if output is not None and output.requires_grad and bar is not None
    ]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not (pairs and wanted):
        return (None,) * len(leaves)
    reached, given = zip(*pairs, strict=True)
    with torch.enable_grad():
        grads = torch.autograd.grad(
            reached, wanted, given, create_graph=create_graph, allow_unused=True
        )
    of_wanted = iter(grads)
    return tuple(next(of_wanted) if leaf.requires_grad else None for leaf in leaves)
