"""Texts by which files recognise rules, losses and scores in another process."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch.nn as nn


def described(value: Any) -> str:
    """Return a text of a value that is the same in every process: functions by name."""
    if isinstance(value, nn.Module):  # whose repr may show what it has learned
        return str([type(module).__qualname__ for module in value.modules()])
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({_arguments(value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {described(each)}' for key, each in value.items())}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(described, value)))}}}"
    if isinstance(value, partial):
        return f"{described(value.func)}({_arguments(value.args, value.keywords)})"
    if is_dataclass(value) and not isinstance(value, type):
        shown = {each.name: getattr(value, each.name) for each in fields(value) if each.repr}
        return f"{type(value).__name__}({_arguments((), shown)})"
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    return re.sub(r" at 0x\w+", "", repr(value))


def _arguments(args: Iterable[Any], keywords: Mapping[str, Any] = {}) -> str:
    named = (f"{name}={described(each)}" for name, each in keywords.items())
    return ", ".join([*map(described, args), *named])
