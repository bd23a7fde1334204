"""Copies of modules that hold other tensors, also where replacement in place would miss them."""

import contextlib
import copy
import copyreg
import functools
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._tree import PLAIN

T = TypeVar("T")
SAME = (*PLAIN, type)
"""Types of values that a copy shares."""
AT_ONCE = frozenset(PLAIN)


def copied(root: T, tensor: Callable[[Tensor], Tensor]) -> T:
    """Copy a module and everything that it refers to, except its tensors.

    The copy follows submodules, attributes, containers, bound methods, partials, and the closures,
    defaults and global modules of functions. Objects without attributes and objects that cannot be
    copied are shared.

    Args:
        root: The module.
        tensor: Maps each tensor to its replacement, usually itself.
    """
    return _Copier(tensor).of(root)


class _Copier:
    """Copies each object once, so that shared objects stay shared."""

    def __init__(self, tensor: Callable[[Tensor], Tensor]) -> None:
        self._tensor = tensor
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []  # so that no id is used again

    def of(self, value: Any) -> Any:
        """Return the copy of a value, made once."""
        if isinstance(value, SAME):
            return value
        if id(value) not in self._made:
            self._alive.append(value)
            self._made[id(value)] = self._copy(value)
        return self._made[id(value)]

    def _copy(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, tuple):
            parts = [self.of(part) for part in value]
            if all(new is old for new, old in zip(parts, value, strict=True)):
                return value
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, functools.partial):
            keywords = {name: self.of(part) for name, part in value.keywords.items()}
            return functools.partial(self.of(value.func), *map(self.of, value.args), **keywords)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, list | dict | set | frozenset | deque):
            return self._container(value)
        return self._object(value)

    def _function(self, function: FunctionType) -> FunctionType:
        """Copy a function with its closure, its defaults and the global modules that it names."""
        closure, named = function.__closure__ or (), _global_modules(function)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        if not (closure or named) and all(isinstance(value, SAME) for value in defaults):
            return function
        cells = tuple(CellType() for _ in closure)
        everything = dict(function.__globals__) if named else function.__globals__
        new = FunctionType(function.__code__, everything, function.__name__, None, cells)
        self._made[id(function)] = new
        vars(new).update(vars(function))
        new.__defaults__ = self.of(function.__defaults__)
        new.__kwdefaults__ = self.of(function.__kwdefaults__)
        everything.update({name: self.of(value) for name, value in named.items()})
        for cell, old in zip(cells, closure, strict=True):
            with contextlib.suppress(ValueError):  # raised for a variable that is not assigned yet
                cell.cell_contents = self.of(old.cell_contents)
        return new

    def _container(self, container: Any) -> Any:
        is_dict = isinstance(container, dict)
        new = self._made[id(container)] = copy.copy(container)
        parts = chain.from_iterable(container.items()) if is_dict else container
        if AT_ONCE.issuperset(map(type, parts)):  # there may be many of them
            return new
        if isinstance(container, frozenset):
            return frozenset(map(self.of, container))
        new.clear()
        add = new.extend if isinstance(container, list | deque) else new.update
        add(map(self.of, container.items() if is_dict else container))
        return new

    def _object(self, value: Any) -> Any:
        attributes = getattr(value, "__dict__", None) or {}
        slots = [name for name in copyreg._slotnames(type(value)) if hasattr(value, name)]  # type: ignore[attr-defined]
        shared = hasattr(type(value), "__del__") or isinstance(value, torch.jit.ScriptModule)
        new = value if shared or not (attributes or slots) else _shallow(value)
        if new is not value:
            self._made[id(value)] = new
            for name, part in attributes.items():
                vars(new)[name] = self.of(part)
            for name in slots:
                object.__setattr__(new, name, self.of(getattr(value, name)))
        return new


def _shallow(value: Any) -> Any:
    """Return a new object with the same attributes, or the object itself if it cannot be copied."""
    try:
        if isinstance(value, nn.Module):  # whose copy protocols may refuse or skip attributes
            new = object.__new__(type(value))
            vars(new).update(vars(value))
            return new
        return copy.copy(value)
    except Exception:  # the value's class may raise anything
        return value


def _global_modules(function: FunctionType) -> dict[str, Any]:
    """Return the modules and tensors among the globals that a function names, by name."""
    everything = function.__globals__
    named = {name: everything[name] for name in _names(function.__code__) if name in everything}
    return {name: value for name, value in named.items() if isinstance(value, nn.Module | Tensor)}


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code refers to, including those in nested functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
