"""What the synthetic task distributions share."""

import pytest
import torch

from metalearn.data import Polynomial, Sinusoid
from metalearn.data._synthetic import add_noise, normal, split, uniform


def test_uniform_fills_its_range():
    draws = uniform((-2, 6), (20_000,), torch.Generator().manual_seed(0), None)
    assert draws.min() >= -2
    assert draws.max() <= 6
    quarters = torch.histc(draws, bins=4, min=-2, max=6) / len(draws)
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.02, rtol=0)


def test_a_range_of_one_value_is_exact():
    assert (uniform((0.3, 0.3), (10,), None, None) == 0.3).all()


def test_normal_has_unit_variance():
    draws = normal((20_000,), torch.Generator().manual_seed(0), None)
    assert abs(draws.mean()) < 0.03
    assert abs(draws.std() - 1) < 0.03


def test_noise_has_its_standard_deviation():
    y = torch.ones(20_000)
    noise = add_noise(y, 0.5, torch.Generator().manual_seed(0)) - y
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 0.5) < 0.02
    assert add_noise(y, 0, None) is y


def test_split_keeps_pairs_together():
    x = torch.arange(12.0).reshape(2, 6, 1)
    episode = split(x, 2 * x, 2)
    assert torch.equal(episode.support.x, x[:, :2])
    assert torch.equal(episode.query.y, 2 * x[:, 2:])


@pytest.mark.parametrize(
    "tasks", [Sinusoid(3, 3, noise_std=0.5), Polynomial(3, 3, 2, noise_std=0.5)]
)
def test_noise_too_comes_from_the_generator(tasks):
    state = torch.get_rng_state()
    first, again = (tasks.sample(2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.query.y, again.query.y)
    assert torch.equal(torch.get_rng_state(), state)
