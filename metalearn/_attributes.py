"""Plain attributes of modules, in which a forward pass may leave tensors.

Such tensors are dead after `vmap` and hold a graph after a loop; modules with them cannot be copied
or pickled.
"""

import copy
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import chain
from operator import is_
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._sharded import sharded_parts
from metalearn._tree import PLAIN

OWN = frozenset(vars(nn.Module()))
"""Attributes of every module, which functional calls restore."""
CONTAINERS = (list, dict, set, deque, tuple)
AT_ONCE = frozenset(PLAIN)
"""Types of values, possibly many, that hold nothing that changes."""
OBJECTS = (nn.Module, SimpleNamespace, Namespace, partial)


@contextmanager
def attributes_kept(*roots: Any) -> Iterator[None]:
    """Undo what the body changes in plain attributes, except new values that hold no tensor.

    Args:
        roots: Modules, or dataclasses that hold modules. Their lists, dicts, sets and dataclasses
            are restored too.
    """
    with _kept(roots, below=True):
        yield


def attributes_of(modules: list[nn.Module]) -> AbstractContextManager[None]:
    """Undo what the body changes in the attributes of these modules themselves."""
    return _kept(modules, below=False) if modules else nullcontext()


@contextmanager
def _kept(roots: Iterable[Any], below: bool) -> Iterator[None]:
    if torch.compiler.is_compiling():  # the compiler restores what it traces
        yield
        return
    found = containers(*roots, below=below)
    before = [(each, each.copy()) for each in found if not isinstance(each, tuple)]
    try:
        yield
    finally:
        for now, then in before:
            _put_back(now, then)


def deep_copied(module: nn.Module) -> Any:
    """Return a deep copy of a module, with tensors in its attributes detached from their graphs.

    Raises:
        ValueError: If parts of it are in pieces.
    """
    if sharded_parts(module):
        fix = "Copy it before; adapted models are called together, adapted(x), and saved as "
        fix += "adapted.params."
        raise invalid("a module to copy", "be whole in every process", "one of fully_shard", fix)
    parts = (each.values() if isinstance(each, dict) else each for each in containers(module))
    tensors = (value for value in chain.from_iterable(parts) if isinstance(value, Tensor))
    left = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    return copy.deepcopy(module, left)


def containers(*roots: Any, below: bool = True) -> Iterator[Any]:
    """Yield attribute dicts, lists, tuples, dicts and sets, those `below` modules included."""
    left, seen = list(roots), set()
    walked = set() if below else set(map(id, left))
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, nn.Module):
            own = vars(each)
            yield own
            left += () if id(each) in walked else each._modules.values()
            left += [own[name] for name in own.keys() - OWN if _holds(own[name])]
            continue
        if isinstance(each, partial):
            each = each.keywords
        elif not isinstance(each, CONTAINERS):
            each = getattr(each, "__dict__", ())
        yield each
        values = each.values() if isinstance(each, dict) else each
        left += [] if AT_ONCE.issuperset(map(type, values)) else filter(_holds, values)


def _holds(value: Any) -> bool:
    """Return whether a value may hold something that changes."""
    if type(value) in AT_ONCE:
        return False
    if isinstance(value, CONTAINERS):
        return not (isinstance(value, tuple) and AT_ONCE.issuperset(map(type, value)))
    return isinstance(value, OBJECTS) or _is_ours(type(value))  # type: ignore[arg-type]


@cache
def _is_ours(kind: Any) -> bool:
    """Return whether a class is a dataclass, or extends one of this library, such as a rule."""
    ours = any(base.__module__.partition(".")[0] == "metalearn" for base in kind.__mro__)
    return ours or hasattr(kind, "__dataclass_fields__")


def _put_back(now: Any, then: Any) -> None:
    if isinstance(now, dict):
        if len(now) == len(then) and all(map(is_, now.values(), then.values())):
            return
        for name, value in list(now.items()):
            if then.get(name, now) is value or _is_plain(value):
                continue
            if name in then:
                now[name] = then[name]
            else:
                del now[name]
    elif isinstance(now, set):
        now -= {value for value in now - then if not _is_plain(value)}
    elif len(now) != len(then) or not all(map(is_, now, then)):
        old = set(map(id, then))
        if not all(id(value) in old or _is_plain(value) for value in now):
            now.clear()
            now.extend(then)


def _is_plain(value: Any) -> bool:
    """Return whether a value can hold no tensor."""
    if isinstance(value, CONTAINERS):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, PLAIN)
