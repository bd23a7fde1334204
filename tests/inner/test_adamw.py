import pytest
import torch

from metalearn import inner
from tests.cases import assert_equals_torch, assert_finite_at_dead_units

PAIRS = [
    (inner.AdamW(0.05), lambda p: torch.optim.AdamW(p, 0.05)),
    (
        inner.AdamW(0.05, (0.5, 0.9), 1e-3, 0.7),
        lambda p: torch.optim.AdamW(p, 0.05, (0.5, 0.9), 1e-3, 0.7),
    ),
    (inner.AdamW(0.05, weight_decay=0), lambda p: torch.optim.Adam(p, 0.05)),
]


@pytest.mark.parametrize(
    ("rule", "optimizer"), PAIRS, ids=lambda value: str(value) if hasattr(value, "lr") else ""
)
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    assert_equals_torch(rule, optimizer, episodes)


def test_second_derivative_is_finite_at_zero_gradients(episodes):
    assert_finite_at_dead_units(inner.AdamW(0.05), episodes)


def test_a_learned_rate_scales_the_decay(episodes):
    rule = inner.LearnedRate(inner.AdamW(0.05, weight_decay=0.7))
    assert_equals_torch(rule, lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.7), episodes)


def test_bad_input():
    message = r"AdamW's weight_decay must be at least 0; got -0.1"
    with pytest.raises(ValueError, match=message):
        inner.AdamW(0.1, weight_decay=-0.1)
    with pytest.raises(TypeError, match=r"AdamW's betas must be a pair; got 3. Write betas="):
        inner.AdamW(0.1, betas=3)
    with pytest.raises(ValueError, match=r"AdamW's betas must be at least 0 and below 1; got 1.0"):
        inner.AdamW(0.1, betas=(0.9, 1.0))
