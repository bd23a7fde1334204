import pytest
import torch

from metalearn import inner


def test_what_follows_starts_at_its_beginning():
    schedule = inner.WarmUp(2, lambda step: 8 * 0.5**step)
    assert schedule(torch.arange(6.0)).tolist() == [4, 8, 8, 4, 2, 1]


BAD = [
    (lambda: inner.WarmUp(0), ValueError, "WarmUp's num_steps must be positive and finite; got 0"),
    (lambda: inner.WarmUp(2, 3), TypeError, "WarmUp's then must be a function of the step"),
    (lambda: inner.WarmUp(2, lambda step: step[0]), ValueError, "a floating tensor of the step's"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
