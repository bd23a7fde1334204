"""Reading and replacing tensors of modules, and pytrees of tensors that are modules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import parametrize

from metalearn._blocks import blocks_called_again
from metalearn._brief import brief
from metalearn._checks import check_kind, did_you_mean, invalid, mistyped
from metalearn._copies import copied
from metalearn._tree import tree_flatten, tree_map, tree_names, tree_unflatten

T = TypeVar("T")

CONSTANTS = "_constant_starts"
"""Module attribute that names the parameters which a learner has turned into buffers."""


Call: TypeAlias = Callable[..., Any]
"""A function of `(module, tensors, args, kwargs)` that calls a module with tensors replaced by
name."""


def functional_call(
    module: nn.Module, tensors: dict[str, Tensor], args: Any, kwargs: dict[str, Any] | None = None
) -> Any:
    """Return what `torch.func.functional_call` does, and restore modules that have two names.

    Tied tensors are replaced everywhere, each place once, and only while the call lasts: a module
    that is recomputed in the backward pass sees its own tensors.
    """
    given = {get_tensor(module, name): tensor for name, tensor in tensors.items()}
    places = {
        f"{path}.{name}".lstrip("."): given[tensor]
        for path, owner in module.named_modules()
        for name, tensor in (*owner._parameters.items(), *owner._buffers.items())
        if tensor is not None and tensor in given
    }
    with _parametrized_anew(), blocks_called_again(module):
        return torch.func.functional_call(module, places, args, kwargs, tie_weights=False)


def call_copy(
    module: nn.Module, tensors: dict[str, Tensor], args: Any, kwargs: dict[str, Any] | None = None
) -> Any:
    """Call a copy of a module that holds other tensors.

    `torch.func.functional_call` replaces tensors only while the call lasts. A module that is
    recomputed in the backward pass, as by `torch.utils.checkpoint`, would then see its own
    parameters; a copy sees the given ones.

    Args:
        module: The module.
        tensors: Replacements of its parameters and buffers by name; tied ones are replaced
            together.
        args: Its arguments as a tuple, or its only argument.
        kwargs: Its keyword arguments.

    Raises:
        TypeError: If `module` is not a module, or `tensors` not a dict of tensors.
        ValueError: If the module lacks a parameter or buffer of that name.

    >>> layer = nn.Linear(2, 1)
    >>> params = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    >>> call_copy(layer, params, torch.ones(3, 2)).flatten().tolist()
    [2.0, 2.0, 2.0]
    """
    check_kind("module", module, nn.Module, "an nn.Module", "the module itself")
    if not (isinstance(tensors, dict) and all(isinstance(t, Tensor) for t in tensors.values())):
        raise mistyped("tensors", "be a dict of tensors by name", brief(tensors), "Pass params.")
    own: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    own |= module.named_buffers(remove_duplicate=False)
    if unknown := sorted(tensors.keys() - own.keys()):
        fix = did_you_mean(unknown[0], own)
        raise invalid("tensors", "be named as parameters and buffers of the module", unknown, fix)
    given = {own[name]: tensor for name, tensor in tensors.items()}
    args = args if isinstance(args, tuple) else (args,)
    with _parametrized_anew():
        return copied(module, lambda tensor: given.get(tensor, tensor))(*args, **(kwargs or {}))


def call_holding(
    module: nn.Module, tensors: dict[str, Tensor], args: Any, kwargs: dict[str, Any] | None = None
) -> Any:
    """Put tensors into a module for good, and call it; nothing else may hold the module."""
    for name, tensor in tensors.items():
        set_tensor(module, name, tensor)
    with _parametrized_anew():
        return module(*args, **(kwargs or {}))


@contextmanager
def _parametrized_anew() -> Iterator[None]:
    """Empty the cache of `torch.nn.utils.parametrize.cached` before and after a call."""
    parametrize._cache.clear()
    try:
        yield
    finally:
        parametrize._cache.clear()


def call_model(
    model: nn.Module, tensors: dict[str, Tensor], x: Any, call: Call = functional_call
) -> Any:
    """Call `model` on the inputs of a `Batch` with some parameters replaced and its own buffers."""
    return call(model, tensors, (), x) if isinstance(x, dict) else call(model, tensors, (x,))


def below(prefix: str, tensors: dict[str, T]) -> dict[str, T]:
    """Return the entries named `<prefix>.<name>` by `<name>`."""
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def get_tensor(module: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by its dotted name.

    Raises:
        ValueError: If it no longer exists.
    """
    *path, last = name.split(".")
    try:
        for part in path:  # getattr takes several times as long
            module = module._modules[part]  # type: ignore[assignment]
        where = module._parameters if last in module._parameters else module._buffers
        return where[last]  # type: ignore[return-value]
    except (KeyError, AttributeError) as error:
        condition = "have the tensors that it had when the learner was made"
        fix = "Change a copy: copy.deepcopy(model), or make the learner after the change."
        raise invalid("model", condition, f"none of the name {name!r}", fix) from error


def set_tensor(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer; an `nn.Parameter` becomes a parameter, others buffers.

    A tied tensor is replaced under all of its names.
    """
    old = get_tensor(module, name)
    for owner in module.modules():
        places = _places(owner, tensor)
        for attribute, value in [*owner._parameters.items(), *owner._buffers.items()]:
            if value is old:
                if attribute not in places:  # else it keeps its place, as optimizers expect
                    delattr(owner, attribute)
                places[attribute] = tensor


def replace_modules(model: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace modules by `new(module)`, the same one wherever one is used; None leaves it.

    Those that are in a replaced one are left. The model is changed in place and returned, or what
    replaces it.
    """
    if (instead := new(model)) is not None:
        return instead
    made: dict[nn.Module, nn.Module | None] = {}
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child not in made:
                made[child] = new(child)
            if child is not None and (instead := made[child]) is not None:
                module._modules[name] = instead
    return model


def _places(owner: nn.Module, tensor: Tensor) -> dict[str, Any]:
    """Return the parameters or the buffers of a module, whichever a tensor goes into."""
    return owner._parameters if isinstance(tensor, nn.Parameter) else owner._buffers


def set_constant(module: nn.Module, name: str) -> None:
    """Replace a parameter by a buffer of the same values, which `constant_starts` finds."""
    owner, _, attribute = name.rpartition(".")
    set_tensor(module, name, get_tensor(module, name).detach())
    vars(module.get_submodule(owner)).setdefault(CONSTANTS, []).append(attribute)


def constant_starts(module: nn.Module) -> list[str]:
    """Return the names of the buffers that `set_constant` has made."""
    return [
        f"{path}.{name}".lstrip(".")
        for path, owner in module.named_modules()
        for name in vars(owner).get(CONSTANTS, ())
        if name in owner._buffers
    ]


def tie(module: nn.Module, names: list[str]) -> None:
    """Replace parameters, or buffers, by the first of them."""
    first = get_tensor(module, names[0])
    for name in names[1:]:
        owner, _, attribute = name.rpartition(".")
        _places(module.get_submodule(owner), first)[attribute] = first


class TensorTree(nn.Module):
    """A pytree of tensors as a module, whose leaves have names such as `rate.0.weight`.

    Calling the module returns the tree of its current tensors.

    Args:
        tree: The pytree.
        learned: Whether its leaves become parameters rather than buffers.

    Raises:
        TypeError: If a leaf is no tensor, or learned and not floating.
    """

    def __init__(self, tree: Any, *, learned: bool = True) -> None:
        super().__init__()
        leaves, spec = tree_flatten(tree)
        names = [name or "value" for name in tree_names(tree)]
        self._names = tree_unflatten(names, spec)
        for name, leaf in zip(names, leaves, strict=True):
            if not isinstance(leaf, Tensor) or (learned and not leaf.is_floating_point()):
                fix = "Return param.new_tensor(0.1), say, which has a parameter's dtype and device."
                kind = "a floating tensor" if learned else "a tensor"
                raise mistyped(f"leaf {name!r}", f"be {kind}", brief(leaf), fix)
            *path, attribute = name.split(".")
            owner: nn.Module = self
            for folder in path:
                if folder not in owner._modules:
                    owner.add_module(folder, nn.Module())
                owner = owner.get_submodule(folder)
            tensor = leaf.detach().clone()
            if learned:
                owner.register_parameter(attribute, nn.Parameter(tensor))
            else:
                owner.register_buffer(attribute, tensor)

    def forward(self) -> Any:
        """Return the tree."""
        return tree_map(lambda name: get_tensor(self, name), self._names)
