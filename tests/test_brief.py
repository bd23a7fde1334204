from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn as nn

from metalearn import _checks
from metalearn._brief import brief

LARGE = torch.zeros(40, 50)
Pair = namedtuple("Pair", "x y")


@dataclass
class Inputs:
    ids: torch.Tensor
    length: int = 3


@dataclass
class Named:
    ids: torch.Tensor

    def __repr__(self):
        return "named"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (LARGE, "Tensor (40, 50) of torch.float32"),
        (nn.Parameter(LARGE), "Parameter (40, 50) of torch.float32"),
        (np.zeros((2, 3)), "ndarray (2, 3) of float64"),
        (torch.tensor(3), "tensor(3)"),
        ([LARGE, 1], "[Tensor (40, 50) of torch.float32, 1]"),
        ((LARGE,), "(Tensor (40, 50) of torch.float32,)"),
        ({"a": (LARGE, None)}, "{'a': (Tensor (40, 50) of torch.float32, None)}"),
        (UserDict(ids=LARGE), "UserDict({'ids': Tensor (40, 50) of torch.float32})"),
        (OrderedDict(ids="x"), "OrderedDict({'ids': 'x'})"),
        (Pair(LARGE, 2), "Pair(x=Tensor (40, 50) of torch.float32, y=2)"),
        (Inputs(LARGE), "Inputs(ids=Tensor (40, 50) of torch.float32, length=3)"),
        (Named(LARGE), "named"),
        (Inputs, repr(Inputs)),
        (list(range(1000)), f"[{', '.join(map(str, range(20)))}, ...]"),
        ("text", "'text'"),
    ],
    ids=str,
)
def test_shapes_in_place_of_numbers(value, text):
    assert brief(value) == text


def test_what_has_no_shape_yet():
    assert "Uninitialized" in brief(nn.LazyLinear(3).weight)


@pytest.mark.parametrize(
    "value", [LARGE, [LARGE], {"x": LARGE}, UserDict(x=LARGE), Inputs(LARGE)], ids=brief
)
@pytest.mark.parametrize(
    "check",
    [
        _checks.check_count,
        _checks.check_bool,
        _checks.check_number,
        _checks.check_positive,
        _checks.check_range,
        _checks.check_function,
        _checks.check_path,
        lambda what, value: _checks.check_index(what, value, 3),
        lambda what, value: _checks.check_choice(what, value, ["a"]),
        lambda what, value: _checks.check_kind(what, value, nn.Module, "a module", "one"),
        lambda _, value: _checks.check_generator(value),
        lambda _, value: _checks.as_device(value),
    ],
)
def test_no_check_prints_a_tensor(check, value):
    with pytest.raises((TypeError, ValueError), match=r"Tensor \(40, 50\) of torch.float32"):
        check("value", value)


@pytest.mark.parametrize("got", [LARGE, [LARGE], {"x": LARGE}, (LARGE, 1)], ids=brief)
def test_no_message_prints_a_tensor(got):
    assert "Tensor (40, 50) of torch.float32" in _checks.message("value", "be small", got)
