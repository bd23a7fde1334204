import pytest
import torch

from metalearn import inner
from tests.cases import assert_equals_torch, assert_finite_at_dead_units

PAIRS = [
    (inner.RMSProp(0.05), lambda p: torch.optim.RMSprop(p, 0.05)),
    (inner.RMSProp(0.05, 0.5, 1e-2), lambda p: torch.optim.RMSprop(p, 0.05, 0.5, 1e-2)),
]


@pytest.mark.parametrize(
    ("rule", "optimizer"), PAIRS, ids=lambda value: str(value) if hasattr(value, "lr") else ""
)
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    assert_equals_torch(rule, optimizer, episodes)


@pytest.mark.parametrize("rule", [rule for rule, _ in PAIRS], ids=str)
def test_second_derivative_is_finite_at_zero_gradients(rule, episodes):
    assert_finite_at_dead_units(rule, episodes)


BAD = [
    (lambda: inner.RMSProp(0.1, alpha=1.0), ValueError, "RMSProp's alpha must be at least 0"),
    (lambda: inner.RMSProp(0.1, eps=-1.0), ValueError, "RMSProp's eps must be positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
