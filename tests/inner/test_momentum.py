import pytest
import torch

from metalearn import inner
from tests.cases import assert_equals_torch, assert_finite_at_dead_units

PAIRS = [
    (inner.Momentum(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8)),
    (inner.Nesterov(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True)),
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
    (
        lambda: inner.Momentum(0.1, 1.5),
        ValueError,
        "Momentum's momentum must be from 0 to 1; got 1.5",
    ),
    (lambda: inner.Nesterov(-1.0), ValueError, "Nesterov's lr must be positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
