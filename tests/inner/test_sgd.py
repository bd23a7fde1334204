import math
from dataclasses import dataclass

import pytest
import torch

from metalearn import inner


def test_update_is_minus_lr_times_gradient():
    grads = {"w": torch.tensor([1.0, -2.0])}
    updates, state = inner.SGD(lr=0.5).update({}, grads, (), grads, torch.tensor(0.0), 0)
    assert updates["w"].tolist() == [-0.5, 1.0]
    assert state == ()


def test_one_operation_takes_the_step():
    rule, generator = inner.SGD(lr=0.3), torch.Generator().manual_seed(0)
    params, grads = ({"w": torch.randn(5, generator=generator).double()} for _ in range(2))
    after, state = rule.advance({}, grads, (), params, torch.tensor(0.0), 0)
    expected = params["w"] + rule.update({}, grads, (), params, torch.tensor(0.0), 0)[0]["w"]
    torch.testing.assert_close(after["w"], expected, rtol=1e-15, atol=0)
    assert state == ()


@dataclass(frozen=True)
class Sign(inner.SGD):
    """A rule of one's own, which mixes no elements, but nobody has said so."""

    def update(self, meta, grads, state, params, loss, step):
        return {name: -self.lr * grad.sign() for name, grad in grads.items()}, state


class Doubled:
    def update(self, *seen):
        updates, state = super().update(*seen)
        return {name: 2 * update for name, update in updates.items()}, state


class DoubledSGD(Doubled, inner.SGD):
    """An update that comes from no rule."""


class Likewise(Sign):
    """Nothing new."""

    elementwise = True


@pytest.mark.parametrize(("rule", "expected"), [(Sign, 0.5), (DoubledSGD, 5.0), (Likewise, 0.5)])
def test_a_subclass_with_another_update_inherits_nothing_said_of_the_first(rule, expected):
    params, grads = {"w": torch.ones(1)}, {"w": torch.full((1,), 5.0)}
    after, _ = rule(lr=0.5).advance({}, grads, (), params, torch.tensor(0.0), 0)
    assert after["w"].item() == 1 - expected
    assert inner.SGD(0.5).elementwise
    assert rule(lr=0.5).elementwise == (rule is Likewise)


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
