import pytest
import torch

from metalearn import inner
from tests.cases import relative_difference, sine_learner


@pytest.mark.parametrize("identity", [False, True])
def test_is_a_cholesky_product_and_perhaps_the_identity(identity):
    torch.manual_seed(0)
    rule, grad = (
        inner.LowRank(0.1, rank=2, identity=identity),
        torch.randn(3, 4, dtype=torch.float64),
    )
    weights = rule.init_weights("w", grad)
    assert weights["L"].shape == (12, 2)
    matrix = identity * torch.eye(12, dtype=torch.float64) + weights["L"] @ weights["L"].T
    torch.testing.assert_close(rule.transform(weights, grad).reshape(-1), matrix @ grad.reshape(-1))


def test_starts_about_as_a_projection_onto_random_directions():
    torch.manual_seed(0)
    weights = inner.LowRank(0.1, rank=3).init_weights("w", torch.zeros(100, 100))
    torch.testing.assert_close(weights["L"].T @ weights["L"], torch.eye(3), atol=0.05, rtol=0)


def test_starts_near_gradient_descent_with_the_identity(episodes):
    ours = sine_learner(inner.LowRank(0.05, identity=True)).adapt(episodes.support)
    plain = sine_learner(inner.SGD(0.05)).adapt(episodes.support)
    assert relative_difference(ours.params, plain.params) < 0.01


@pytest.mark.parametrize(("rank", "error"), [(0, ValueError), (1.5, TypeError)])
def test_bad_rank(rank, error):
    with pytest.raises(error, match="LowRank's rank"):
        inner.LowRank(0.1, rank)


def test_bad_identity():
    with pytest.raises(TypeError, match="LowRank's identity must be True or False; got 1"):
        inner.LowRank(0.1, identity=1)
