import pytest
import torch

from metalearn import inner
from tests.cases import assert_equals_torch, assert_finite_at_dead_units

PAIRS = [
    (inner.Adam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
    (inner.Adam(0.05, (0.0, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 0.05, (0.0, 0.9), 1e-3)),
]


@pytest.mark.parametrize(
    ("rule", "optimizer"), PAIRS, ids=lambda value: str(value) if hasattr(value, "lr") else ""
)
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    assert_equals_torch(rule, optimizer, episodes)


@pytest.mark.parametrize("rule", [rule for rule, _ in PAIRS], ids=str)
def test_second_derivative_is_finite_at_zero_gradients(rule, episodes):
    assert_finite_at_dead_units(rule, episodes)


def test_keeps_its_digits_in_low_precision():
    weight = torch.ones(4, dtype=torch.bfloat16)
    rule, grads = (
        inner.Adam(0.1),
        {"w": torch.tensor([1.0, -2.0, 3e-3, 1e-3], dtype=torch.bfloat16)},
    )
    state = rule.init_state({}, {"w": weight}, torch.tensor(0))
    for step in range(5):
        updates, state = rule.update({}, grads, state, {"w": weight}, weight.new_zeros(()), step)
        # of a constant gradient Adam takes the sign
        assert (updates["w"].abs() - 0.1).abs().max() < 0.01


BAD = [
    (lambda: inner.Adam(0.1, betas=0.9), TypeError, "betas=(0.9, 0.999)"),
    (lambda: inner.Adam(0.1, betas=(0.9, 1.0)), ValueError, "at least 0 and below 1"),
    (lambda: inner.Adam(0.1, eps=0.0), ValueError, "Adam's eps must be positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
