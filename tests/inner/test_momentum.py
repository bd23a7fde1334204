import pytest
import torch

from metalearn import inner
from tests.cases import assert_equals_torch, assert_finite_at_dead_units

PAIRS = [
    (inner.Momentum(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8)),
    (
        inner.Momentum(0.05, 0.8, dampening=0.3),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, dampening=0.3),
    ),
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


def test_only_the_first_gradient_of_all_windows_is_not_dampened():
    rule, params = inner.Momentum(1.0, 0.5, dampening=0.25), {"w": torch.zeros(1).double()}
    state, updates = rule.init_state({}, params, torch.tensor(0)), []
    for step in (0, 1, 0):
        update, state = rule.update({}, {"w": torch.ones(1)}, state, params, torch.zeros(()), step)
        updates.append(update["w"].item())
    assert updates == [-1, -1.25, -1.375]


def test_without_dampening_the_state_is_the_velocity():
    params = {"w": torch.zeros(2)}
    assert inner.Momentum(0.1).init_state({}, params, torch.tensor(0)).keys() == {"w"}


BAD = [
    (
        lambda: inner.Momentum(0.1, 1.5),
        ValueError,
        "Momentum's momentum must be from 0 to 1; got 1.5",
    ),
    (
        lambda: inner.Momentum(0.1, dampening=-0.1),
        ValueError,
        "Momentum's dampening must be from 0 to 1; got -0.1",
    ),
    (lambda: inner.Nesterov(-1.0), ValueError, "Nesterov's lr must be positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
