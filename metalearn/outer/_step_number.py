"""The number of an inner step that knows whether anybody has asked for it."""

from collections.abc import Callable
from typing import Any


class StepNumber:
    """Stands for an int while a step is captured; what does not ask for it holds for every step.

    Attributes:
        is_used: Whether it was computed with, compared or shown.
    """

    def __init__(self, value: int) -> None:
        self._value, self.is_used = value, False

    def __getattr__(self, name: str) -> Any:
        self.is_used = True
        return getattr(self._value, name)


def _asks(name: str) -> Callable[..., Any]:
    def method(self: StepNumber, *args: Any) -> Any:
        self.is_used = True
        return getattr(int(self._value), name)(*args)

    return method


COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
SHOWN = ("__hash__", "__repr__", "__str__", "__format__")
ARITHMETIC = sorted(
    {name for name in dir(int) if name.startswith("__")} - {*dir(object), "__getnewargs__"}
)
for _name in [*COMPARISONS, *SHOWN, *ARITHMETIC]:
    setattr(StepNumber, _name, _asks(_name))
