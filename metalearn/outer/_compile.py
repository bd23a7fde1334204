"""`torch.compile` of one learner's meta-step."""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch


def compile_whole(function: Callable[..., Any], options: bool | Mapping[str, Any]) -> Callable[..., Any]:
    """Compile a plain function as one graph for fixed shapes.

    Args:
        function: The function. A copy of it is compiled, since `torch.compile` counts recompilations by code object
            and gives up after a few, while each learner may compile its own.
        options: True, or options of `torch.compile`.
    """
    own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    chosen = {"fullgraph": True, "dynamic": False} | ({} if isinstance(options, bool) else dict(options))
    return torch.compile(own, **chosen)
