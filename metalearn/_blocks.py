"""Blocks of a model that are computed again in backward passes, in the second one too.

`torch.utils.checkpoint` has no second derivative, and sees a module's own parameters in the
backward pass. Here a block and the pull-back through it are functions of autograd that keep their
arguments alone, and are computed again for their own derivatives: of a backward pass through a
backward pass only one block's graph is alive at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd import Function
from torch.nn.attention import _cur_sdpa_kernel_backends, sdpa_kernel

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
    names, (given, with_inputs) = tuple(own), _parted((args, kwargs))
    with_outputs: list[Callable[..., Any]] = []

    def function(*tensors: Tensor) -> list[Tensor]:
        replaced = dict(zip(names, tensors, strict=False))
        arguments = with_inputs(tensors[len(names) :])
        outputs, put_back = _parted(torch.func.functional_call(holder, replaced, *arguments))
        with_outputs[:] = [put_back]
        return outputs

    inputs = [*own.values(), *given]
    if not inputs:
        return holder(*args, **kwargs)
    surroundings = _Surroundings(holder.block, {tensor.device.type for tensor in inputs})
    outputs = _Block.apply(function, surroundings, *inputs)
    return with_outputs[0](outputs)


def _parted(tree: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """Return the tensors of a tree, and what makes the tree of others beside its other leaves."""
    leaves, structure = tree_flatten(tree)
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def put_back(tensors: Sequence[Tensor]) -> Any:
        both = list(others)
        for place, tensor in zip(places, tensors, strict=True):
            both[place] = tensor
        return tree_unflatten(both, structure)

    return [leaves[place] for place in places], put_back


class _Surroundings:
    """What a block is called within, beside its arguments, to be there again.

    That is autocast, the kernels of attention that are allowed, and the attributes of its modules.
    """

    def __init__(self, block: nn.Module, device_types: set[str]) -> None:
        self._autocast = [
            (each, torch.get_autocast_dtype(each), torch.is_autocast_enabled(each))
            for each in sorted(device_types)
            if torch.amp.is_autocast_available(each)
        ]
        self._is_cached = torch.is_autocast_cache_enabled()
        self._kernels = _cur_sdpa_kernel_backends()
        self._attributes = [(module, dict(vars(module))) for module in block.modules()]

    def forget_casts(self) -> None:
        """Empty autocast's cache, which would keep a copy of the parameters of every block.

        Some versions of PyTorch would also use a cast that a block has made, and that has no graph
        then, after the block.
        """
        if any(is_enabled for _, _, is_enabled in self._autocast):
            torch.clear_autocast_cache()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Surround the body, and leave attributes as they are now."""
        now = [(module, dict(vars(module))) for module, _ in self._attributes]
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(self._kernels))
            stack.callback(self.forget_casts)
            for device_type, dtype, is_enabled in self._autocast:
                stack.enter_context(
                    torch.autocast(device_type, dtype, is_enabled, cache_enabled=self._is_cached)
                )
            stack.callback(_set_attributes, now)
            _set_attributes(self._attributes)
            yield


def _set_attributes(attributes: Sequence[tuple[nn.Module, dict[str, Any]]]) -> None:
    for module, values in attributes:
        own = vars(module)
        for name in own.keys() - values.keys():
            del own[name]
        own.update(values)


class _Block(Function):
    """A function of tensors, which is computed again for its derivative."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Any], surroundings: _Surroundings, *inputs: Tensor
    ) -> Any:
        ctx.function, ctx.surroundings = function, surroundings
        ctx.save_for_backward(*inputs)
        with Draws(inputs[0].device) as ctx.draws:
            outputs = function(*inputs)
        surroundings.forget_casts()
        ctx.mark_non_differentiable(*(each for each in outputs if not _is_smooth(each)))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        wanted = ctx.needs_input_grad[2:]
        again = partial(_graph, ctx.function, ctx.surroundings, ctx.draws, wanted)
        return None, None, *_PullBack.apply(again, len(bars), *bars, *ctx.saved_tensors)


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
        bars = [bar.detach().requires_grad_(_is_smooth(bar)) for bar in bars]
        leaves, grads = _pulled(ctx.again, bars, inputs, create_graph=True)
        return None, None, *_grads(grads, slopes, [*bars, *leaves])


def _is_smooth(tensor: Tensor) -> bool:
    """Return whether a tensor may have a derivative."""
    return tensor.is_floating_point() or tensor.is_complex()


def _graph(
    function: Callable[..., Any],
    surroundings: _Surroundings,
    draws: Draws,
    wanted: Sequence[bool],
    inputs: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Compute a function again; return its inputs as they are differentiated, and outputs."""
    pairs = zip(inputs, wanted, strict=True)
    leaves = [tensor.detach().requires_grad_(is_wanted) for tensor, is_wanted in pairs]
    with torch.enable_grad(), surroundings.again(), draws.again():
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
