"""The number of an inner step that notes what is asked of it, so that others can take its graph."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Questions: TypeAlias = list[tuple[str, tuple[Any, ...], Any]]
"""What was asked of a number: an int's method, its arguments, and the answer."""
WHICH = "__int__"
"""The question that every number has another answer to."""


class StepNumber:
    """Stands for an int while a step is captured.

    Args:
        value: The number.
        tensor: It as an argument of the graph, a scalar, which may be computed with.
        asked: Where questions are noted whose answers stand in the graph as constants.
    """

    def __init__(self, value: int, tensor: Tensor, asked: Questions) -> None:
        self._value, self.tensor, self._asked = value, tensor, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.append((WHICH, (), self._value))
        return getattr(self._value, name)


def has_same_answers(step: int, asked: Questions) -> bool:
    """Return whether a number answers as the one did that was asked."""
    return all(getattr(step, name)(*args) == answer for name, args, answer in asked)


def row_of_step(rows: Tensor, step: int | StepNumber) -> Tensor:
    """Return the row of a step, and for steps beyond the last row that one.

    Args:
        rows: One row a step, `[num_steps, ...]`.
        step: Number of the step, from 0; a graph has it as a tensor.
    """
    last = len(rows) - 1
    if isinstance(step, StepNumber):
        return rows.index_select(0, step.tensor.clamp(max=last).reshape(1)).squeeze(0)
    return rows[min(step, last)]


def step_as(like: Tensor, step: int | StepNumber) -> Tensor:
    """Return the number of a step as a scalar of a tensor's kind."""
    if isinstance(step, StepNumber):
        return step.tensor.to(like.dtype)
    return torch.full((), step, dtype=like.dtype, device=like.device)


def _asks(name: str) -> Callable[..., Any]:
    def method(self: StepNumber, *args: Any) -> Any:
        answer = getattr(self._value, name)(*args)
        self._asked.append((name, args, answer))
        return answer

    return method


COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
SHOWN = ("__hash__", "__repr__", "__str__", "__format__")
ARITHMETIC = sorted(
    {name for name in dir(int) if name.startswith("__")} - {*dir(object), "__getnewargs__"}
)
for _name in [*COMPARISONS, *SHOWN, *ARITHMETIC]:
    setattr(StepNumber, _name, _asks(_name))
