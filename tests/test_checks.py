import math

import pytest

from metalearn import _checks


def test_messages_have_one_form():
    assert _checks.message("x", "be odd", 2) == "x must be odd; got 2."
    assert _checks.message("x", "be odd", 2, "Write x=3.") == "x must be odd; got 2. Write x=3."


@pytest.mark.parametrize(
    ("check", "value", "error"),
    [
        (_checks.check_count, 0, ValueError),
        (_checks.check_count, True, TypeError),
        (_checks.check_count, 1.0, TypeError),
        (_checks.check_positive, 0.0, ValueError),
        (_checks.check_positive, math.inf, ValueError),
        (_checks.check_positive, math.nan, ValueError),
        (_checks.check_positive, True, TypeError),
        (_checks.check_positive, "1", TypeError),
        (_checks.check_not_negative, -1, ValueError),
        (_checks.check_not_negative, math.inf, ValueError),
        (_checks.check_not_negative, math.nan, ValueError),
        (_checks.check_not_negative, "0", TypeError),
        (_checks.check_not_negative, True, TypeError),
        (_checks.check_range, (2, 1), ValueError),
        (_checks.check_range, (0, math.inf), ValueError),
        (_checks.check_range, (0,), TypeError),
        (_checks.check_range, ("a", "b"), TypeError),
        (_checks.check_range, 3, TypeError),
    ],
)
def test_refusals(check, value, error):
    with pytest.raises(error, match="value must be .*; got .*"):
        check("value", value)


def test_accepts():
    _checks.check_count("value", 0, minimum=0)
    _checks.check_positive("value", 1)
    _checks.check_not_negative("value", 0)
    _checks.check_range("value", [1, 1])
    _checks.check_choice("value", 2, range(3))


def test_names_the_closest_choice():
    with pytest.raises(
        ValueError, match=r"must be one of \['vmap', 'loop'\]; got 'vmop'. Did you mean 'vmap'\?"
    ):
        _checks.check_choice("batching", "vmop", ["vmap", "loop"])
    assert _checks.did_you_mean("xyz", ["vmap"]) == ""
