import math

import pytest
import torch
from torch import Tensor

from metalearn._tree import tree_leaves, tree_map
from metalearn.data import Sinusoid


def generator():
    return torch.Generator().manual_seed(0)


def test_shapes():
    episodes = Sinusoid(k_shot=5, num_query=7).sample(3, generator=generator())
    assert [tuple(leaf.shape) for leaf in tree_leaves(episodes)] == [(3, 5, 1)] * 2 + [
        (3, 7, 1)
    ] * 2


def test_targets_are_the_sine_wave():
    tasks = Sinusoid(4, 6, amplitude=(2, 2), phase=(0.5, 0.5), frequency=(3, 3))
    for x, y, _ in tasks.sample(10, generator=generator()):
        torch.testing.assert_close(y, 2 * torch.sin(3 * x - 0.5))


def test_support_and_query_lie_on_one_wave():
    # On y = a sin x + b cos x, found by least squares on the support set alone.
    episodes = Sinusoid(10, 10).sample(50, generator=generator())
    (x, y, _), query = tree_map(Tensor.double, episodes)

    def basis(x):
        return torch.cat([x.sin(), x.cos()], dim=-1)

    wave = torch.linalg.lstsq(basis(x), y).solution
    torch.testing.assert_close(basis(query.x) @ wave, query.y, atol=1e-4, rtol=1e-4)
    amplitude = wave.norm(dim=1)
    phase = torch.atan2(-wave[:, 1], wave[:, 0])
    assert 0.1 <= amplitude.min() < 1 < 4 < amplitude.max() <= 5
    assert 0 <= phase.min() < 0.5 < 2.6 < phase.max() <= math.pi


def test_inputs_fill_their_range():
    x = Sinusoid(50, 50, x_range=(2, 3)).sample(20, generator=generator()).query.x
    assert 2 <= x.min() < 2.05 < 2.95 < x.max() <= 3


def test_noise_is_on_support_and_query():
    tasks = Sinusoid(500, 500, amplitude=(0, 0), noise_std=0.2)
    for batch in tasks.sample(2, generator=generator()):
        assert abs(batch.y.std() - 0.2) < 0.02


def test_it_is_a_value():
    assert Sinusoid(5, 5) == Sinusoid(5, 5)
    assert Sinusoid(5, 5) != Sinusoid(5, 5, noise_std=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k_shot": 0}, ValueError, r"k_shot must be at least 1; got 0\. Pass Sinusoid\(k_shot=10"),
        ({"k_shot": 1.0}, TypeError, r"k_shot must be an int; got 1\.0"),
        ({"num_query": 0}, ValueError, "num_query must be at least 1; got 0"),
        (
            {"amplitude": 2},
            TypeError,
            r"amplitude must be a pair of numbers \(low, high\); got 2\. Pass amplitude=",
        ),
        ({"phase": (1, 0)}, ValueError, r"phase must be finite with low <= high.*; got \(1, 0\)"),
        ({"phase": (-1e308, 1e308)}, ValueError, r"high - low finite; got \(-1e\+308, 1e\+308\)"),
        ({"frequency": (1, math.inf)}, ValueError, "frequency must be finite"),
        ({"x_range": (1, 2, 3)}, TypeError, "x_range must be a pair"),
        ({"noise_std": -0.1}, ValueError, r"noise_std must be at least 0; got -0\.1"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        Sinusoid(**{"k_shot": 5, "num_query": 5} | arguments)
