"""Fields of dataclasses that are checked by their types.

They come with or without a fix for the error: `momentum: Fraction = 0.9`, or
`lr: Annotated[Positive, "Pass lr=0.01, say."]`.
"""

import inspect
from collections.abc import Callable
from contextlib import suppress
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args

from metalearn import _checks


class Check:
    """A check from `_checks`, with the arguments that follow what the value is and the value."""

    def __init__(self, check: Callable[..., None], *args: Any, **options: Any) -> None:
        self.check, self.args, self.options = check, args, options

    def __call__(self, what: str, value: Any, fix: str) -> None:
        """Raise unless a value is what it must be."""
        options = {**self.options, "fix": fix} if fix else self.options
        self.check(what, value, *self.args, **options)


Number = Annotated[float, Check(_checks.check_number)]
Positive = Annotated[float, Check(_checks.check_positive)]
NotNegative = Annotated[float, Check(_checks.check_not_negative)]
Fraction = Annotated[float, Check(_checks.check_fraction)]
Decay = Annotated[float, Check(_checks.check_decay)]
Range = Annotated[tuple[float, float], Check(_checks.check_range), "Pass {field}=(low, high)."]
Count = Annotated[int, Check(_checks.check_count)]
CountOrNone = Annotated[int | None, Check(_checks.check_count)]
CountFromZero = Annotated[int, Check(_checks.check_count, minimum=0)]
Flag = Annotated[bool, Check(_checks.check_bool)]


class Checked:
    """A dataclass that checks its fields when it is made; None passes where a type has it.

    Its own conditions go into `__post_init__`, which calls this one first.
    """

    _what: ClassVar[str] = "{own}'s {field}"
    """What errors call a field: in this and in fixes, {own} stands for the class's name."""
    _field_checks: ClassVar[dict[str, tuple[Check, str, bool]]] = {}
    """By field: its check, the fix, and whether None passes."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Read the fields' checks, and leave plain types behind, as help() is to show them."""
        super().__init_subclass__(**options)
        with suppress(NameError):  # from Python 3.14 on, of a user's types that are not there yet
            for field, kind in inspect.get_annotations(cls).items():
                match get_args(kind):
                    case plain, Check() as check, *fix:
                        entry = check, "".join(fix[-1:]), NoneType in get_args(plain)
                        cls._field_checks = {**cls._field_checks, field: entry}
                        cls.__annotations__[field] = plain

    def __post_init__(self) -> None:
        for field, (check, fix, optional) in self._field_checks.items():
            value = getattr(self, field)
            if not (optional and value is None):
                names = {"own": type(self).__name__, "field": field}
                check(self._what.format(**names), value, fix.format(**names))
