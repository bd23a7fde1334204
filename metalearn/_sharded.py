"""Modules whose parameters are in pieces between calls: those of `fully_shard`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from metalearn._checks import invalid

AGAIN = "Leave the checkpoints out; outer.Stepwise() keeps the activations of one step alone."


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is this process's piece of one."""
    # looked up, since importing it takes long
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def sharded_parts(module: nn.Module) -> list[Any]:
    """Return the modules that put their parameters together to be called."""
    if "torch.distributed.fsdp" not in sys.modules:  # spares the walk
        return []
    return list(filter(_is_sharded_part, module.modules()))


def _is_sharded_part(module: nn.Module) -> bool:
    return isinstance(module, sys.modules["torch.distributed.fsdp"].FSDPModule)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of a module but for constants in pieces, of which others have the rest."""
    return {name: each for name, each in module.state_dict().items() if not is_sharded(each)}


def load_whole_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `whole_state` has returned of a module with the same pieces."""
    pieces = {name: each for name, each in module.state_dict().items() if is_sharded(each)}
    module.load_state_dict({**pieces, **state})


@contextmanager
def whole_when_read(module: nn.Module) -> Iterator[None]:
    """Put parameters together again that a backward pass reads, one part's at a time.

    Their own hooks do so in the backward pass of a forward pass. A second derivative reads what the
    first backward pass has kept, when they are in pieces: it is in memory that was emptied, and is
    filled here.

    Raises:
        ValueError: If the module computes a part again in the backward pass, whose hooks take the
            place of these.
    """
    if not sharded_parts(module) or _hooks_now() is not None:  # within another one
        yield
        return
    hooks = _Hooks()
    handles = [each.register_forward_pre_hook(hooks.called) for each in module.modules()]
    try:
        with saved_tensors_hooks(hooks.pack, hooks.unpack):
            yield
    finally:
        for handle in handles:
            handle.remove()
        hooks.take_apart()


class _Hooks:
    """Hooks on calls and on saved tensors."""

    def __init__(self) -> None:
        self._owners: dict[int, Any] = {}
        self._together: list[Any] = []

    def called(self, part: Any, _: Any) -> None:
        if _hooks_now() is not self:
            got = "one that computes a part again in the backward pass"
            raise invalid("a model in pieces", "keep what that pass needs", got, AGAIN)
        if _is_sharded_part(part):
            for param in part.parameters():
                self._owners[param.untyped_storage()._cdata] = part

    def pack(self, tensor: Tensor) -> tuple[Tensor, Any]:
        return tensor, self._owners.get(tensor.untyped_storage()._cdata)

    def unpack(self, packed: tuple[Tensor, Any]) -> Tensor:
        tensor, part = packed
        if part is not None and not tensor.untyped_storage().size():
            self.take_apart()
            part.unshard()
            self._together.append(part)
        return tensor

    def take_apart(self) -> None:
        while self._together:
            self._together.pop().reshard()


def _hooks_now() -> _Hooks | None:
    """Return which of these hooks tensors are saved by, if any."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    owner = getattr(hooks[0], "__self__", None) if hooks else None
    return owner if isinstance(owner, _Hooks) else None
