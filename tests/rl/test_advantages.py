import pytest
import torch

from metalearn import rl


def test_advantages_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    expected, ahead, after = (
        torch.zeros(5, 3).double(),
        torch.zeros(3).double(),
        torch.zeros(3).double(),
    )
    for step in reversed(range(5)):
        delta = rewards[step] + 0.9 * after - values[step]
        ahead = delta + 0.9 * 0.8 * ahead
        expected[step], after = ahead, values[step]
    assert torch.allclose(rl.advantages(rewards, values, 0.9, 0.8), expected)


def test_at_decay_1_they_are_returns_minus_values():
    rewards, values = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        rl.advantages(rewards, values), rl.advantages(rewards) - values, atol=1e-6
    )


def test_decay_counts_without_values_too():
    rewards = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    expected = rl.advantages(rewards, torch.zeros_like(rewards), 0.9, 0.5)
    assert torch.allclose(rl.advantages(rewards, discount=0.9, decay=0.5), expected)


def test_a_return_that_is_linear_in_the_features_is_fitted():
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(6, 50, 2, generator=generator)
    returns = 2 * observations[..., 0] - observations[..., 1].square() + 3
    rewards = returns - 0.5 * torch.cat([returns[1:], torch.zeros(1, 50)])
    assert torch.allclose(rl.fitted_values(observations, rewards, 0.5), returns, atol=1e-3)


def test_a_return_that_is_cubic_in_time_is_fitted():
    time = torch.arange(100)[:, None].expand(100, 2).double() / 100
    returns = 1 - time + 2 * time**2 - 3 * time**3
    rewards = returns - 0.5 * torch.cat([returns[1:], torch.zeros(1, 2)])
    assert torch.allclose(
        rl.fitted_values(torch.zeros(100, 2, 1).double(), rewards, 0.5), returns, atol=1e-4
    )


def test_observations_that_never_change_are_fitted_too():
    assert rl.fitted_values(torch.ones(3, 4, 2), torch.ones(3, 4)).isfinite().all()


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"values and rewards must be of the same steps; got \(3, 3\) and \(2, 3\)"
    ):
        rl.advantages(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(
        ValueError, match=r"observations must be of shape \[horizon, .*; got \(2, 3\)"
    ):
        rl.fitted_values(torch.zeros(2, 3), torch.zeros(2, 3))


def test_a_discount_is_not_rounded():
    rewards = torch.ones(200, 1)
    exact = (1 - 0.999**200) / 0.001
    assert rl.advantages(rewards.double(), discount=0.999)[0].item() == pytest.approx(
        exact, rel=1e-12
    )
    assert rl.advantages(rewards.bfloat16(), discount=0.999)[0].item() == pytest.approx(
        exact, rel=1e-2
    )


def test_large_constant_observations_have_values():
    values = rl.fitted_values(torch.full((50, 4, 2), 700.0), torch.ones(50, 4))
    assert values.isfinite().all()
