import copy
import inspect
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Annotated

import pytest
import torch

from metalearn import inner
from metalearn._checks import check_between, check_choice
from metalearn._fields import (
    Check,
    Checked,
    Count,
    CountFromZero,
    CountOrNone,
    Decay,
    Flag,
    Fraction,
    NotNegative,
    Number,
    Positive,
    Range,
)


@dataclass(frozen=True)
class Heat(Checked):
    warm: Annotated[Positive, "Pass {own}(warm=2.0)."]
    steps: Annotated[CountOrNone, "Leave {field} out."] = None
    share: Annotated[float, Check(check_between, 0, 1), "Pass share=0.5."] = 0.5
    per: Annotated[str, Check(check_choice, ("room", "house"))] = "room"
    bounds: Range = (0, 1)
    extremes: Annotated[Range, "From cold to hot."] = (0, 1)
    free: int = 3


@dataclass(frozen=True)
class Sauna(Heat):
    dry: Flag = True

    def __post_init__(self):
        super().__post_init__()
        if self.dry and self.warm < 60:
            raise ValueError("A dry sauna is hot.")


@dataclass(frozen=True)
class Bare(Checked):
    _what = "{field}"

    count: Count


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Heat(0),
            ValueError,
            "Heat's warm must be positive and finite; got 0. Pass Heat(warm=2.0).",
        ),
        (lambda: Heat(True), TypeError, "Heat's warm must be a number; got True."),
        (
            lambda: Heat(1, 0),
            ValueError,
            "Heat's steps must be at least 1; got 0. Leave steps out.",
        ),
        (lambda: Heat(None), TypeError, "Heat's warm must be a number; got None."),
        (
            lambda: Heat(1, share=1),
            ValueError,
            "Heat's share must be strictly between 0 and 1; got 1. Pass share=0.5.",
        ),
        (
            lambda: Heat(1, per="hous"),
            ValueError,
            "Heat's per must be one of ['room', 'house']; got 'hous'. Did you mean 'house'?",
        ),
        (lambda: Heat(1, bounds=(1, 0)), ValueError, "Pass bounds=(low, high)."),
        (
            lambda: Heat(1, extremes=(1, 0)),
            ValueError,
            "high - low finite; got (1, 0). From cold to hot.",
        ),
        (lambda: Sauna(-1), ValueError, "Sauna's warm must be positive and finite; got -1."),
        (lambda: Sauna(80, dry=1), TypeError, "Sauna's dry must be True or False; got 1."),
        (lambda: Sauna(50), ValueError, "A dry sauna is hot."),
        (lambda: replace(Heat(1), warm=-1), ValueError, "Heat's warm must be positive"),
        (lambda: Bare(0), ValueError, "count must be at least 1; got 0."),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        pytest.param(Number, -1, ["1"], id="number"),
        pytest.param(Positive, 1e-9, [0, "1"], id="positive"),
        pytest.param(NotNegative, 0, [-1e-9], id="not negative"),
        pytest.param(Fraction, 1, [1.1, -0.1], id="fraction"),
        pytest.param(Decay, 0.99, [1], id="decay"),
        pytest.param(Count, 1, [0, 1.0], id="count"),
        pytest.param(CountFromZero, 0, [-1], id="count from zero"),
        pytest.param(CountOrNone, None, [0, False], id="count or none"),
    ],
)
def test_numbers(kind, good, bad):
    @dataclass(frozen=True)
    class One(Checked):
        number: kind

    assert One(good).number == good
    for number in [*bad, True, math.nan, math.inf]:
        with pytest.raises((TypeError, ValueError), match="One's number must "):
            One(number)


def test_they_are_plain_dataclasses():
    heat = Heat(1.0)
    assert Heat(1.0, free="anything").free == "anything"
    assert str(inspect.signature(Sauna)).startswith(
        "(warm: float, steps: int | None = None, share: float = 0.5, per: str = 'room', "
    )
    assert {field.type for field in fields(Bare)} == {int}
    assert repr(Bare(3)) == "Bare(count=3)"
    assert heat == replace(heat) == copy.deepcopy(heat) == pickle.loads(pickle.dumps(heat))
    assert hash(heat) == hash(replace(heat))
    with pytest.raises(FrozenInstanceError):
        heat.warm = 2.0


def test_a_graph_may_make_them():
    def scaled(x):
        return replace(Heat(2.0), warm=3.0).warm * x

    compiled = torch.compile(scaled, fullgraph=True, backend="eager")
    assert compiled(torch.ones(())) == 3


def test_all_of_the_package_check_before_their_own_conditions():
    found = subclasses(Checked)
    assert {inner.SGD, inner.Turtle} <= found
    for own in found:
        if "__post_init__" in vars(own):
            assert "        super().__post_init__()\n" in inspect.getsource(own.__post_init__)


def subclasses(base):
    own = {each for each in base.__subclasses__() if each.__module__.startswith("metalearn.")}
    return own.union(*map(subclasses, own))
