import math

import pytest
import torch

from metalearn._tree import tree_leaves
from metalearn.data import Polynomial


def generator():
    return torch.Generator().manual_seed(0)


def powers(x, order):
    return torch.cat([x**power for power in range(order + 1)], dim=-1)


def test_shapes():
    episodes = Polynomial(5, 7, order=2).sample(3, generator=generator())
    assert [tuple(leaf.shape) for leaf in tree_leaves(episodes)] == [(3, 5, 1)] * 2 + [
        (3, 7, 1)
    ] * 2


@pytest.mark.parametrize("order", range(4))
def test_targets_are_a_polynomial_of_the_order(order):
    episodes = Polynomial(10, 10, order).sample(100, generator=generator())
    support, query = episodes
    coefficients = torch.linalg.lstsq(
        powers(support.x.double(), order), support.y.double()
    ).solution
    torch.testing.assert_close(
        powers(query.x.double(), order) @ coefficients, query.y.double(), atol=1e-3, rtol=1e-3
    )
    lows, highs = coefficients.amin(dim=0), coefficients.amax(dim=0)
    assert (lows >= -1.01).all()
    assert (lows < -0.8).all()
    assert (highs <= 1.01).all()
    assert (highs > 0.8).all()


def test_given_coefficients():
    x, y, _ = (
        Polynomial(8, 1, order=3, coefficient_range=(2, 2)).sample(2, generator=generator()).support
    )
    torch.testing.assert_close(y, 2 * (1 + x + x**2 + x**3))


def test_inputs_fill_their_range():
    x = Polynomial(50, 50, order=1).sample(20, generator=generator()).support.x
    assert -2 <= x.min() < -1.9 < 1.9 < x.max() <= 2


def test_noise_is_on_support_and_query():
    tasks = Polynomial(500, 500, order=1, coefficient_range=(0, 0), noise_std=0.2)
    for batch in tasks.sample(2, generator=generator()):
        assert abs(batch.y.std() - 0.2) < 0.02


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"k_shot": 0},
            ValueError,
            r"k_shot must be at least 1; got 0\. Pass Polynomial\(k_shot=10",
        ),
        ({"num_query": None}, TypeError, "num_query must be an int; got None"),
        ({"order": -1}, ValueError, "order must be at least 0; got -1"),
        ({"order": 1.5}, TypeError, r"order must be an int; got 1\.5"),
        (
            {"coefficient_range": (1, -1)},
            ValueError,
            "coefficient_range must be finite with low <= high",
        ),
        ({"x_range": 2}, TypeError, r"x_range must be a pair of numbers \(low, high\); got 2"),
        ({"noise_std": math.nan}, ValueError, "noise_std must be finite; got nan"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        Polynomial(**{"k_shot": 5, "num_query": 5, "order": 1} | arguments)
