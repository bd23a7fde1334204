import math

import pytest
import torch

from metalearn import inner


def test_update_is_minus_lr_times_gradient():
    grads = {"w": torch.tensor([1.0, -2.0])}
    updates, state = inner.SGD(lr=0.5).update({}, grads, (), grads, torch.tensor(0.0), 0)
    assert updates["w"].tolist() == [-0.5, 1.0]
    assert state == ()


BAD = [
    (lambda: inner.SGD(0), ValueError, "SGD's lr must be positive and finite; got 0."),
    (lambda: inner.SGD(-1.0), ValueError, "inner.SGD(lr=0.01)"),
    (lambda: inner.SGD(math.nan), ValueError, "got nan"),
    (lambda: inner.SGD("fast"), TypeError, "must be a number; got 'fast'"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
