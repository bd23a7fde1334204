import pytest
import torch

from metalearn import inner
from tests.cases import relative_difference, sine_learner


def test_is_the_identity_and_a_cholesky_product():
    torch.manual_seed(0)
    rule, grad = inner.LowRank(0.1, rank=2), torch.randn(3, 4, dtype=torch.float64)
    weights = rule.init_weights("w", grad)
    assert weights["L"].shape == (12, 2)
    matrix = torch.eye(12, dtype=torch.float64) + weights["L"] @ weights["L"].T
    torch.testing.assert_close(rule.transform(weights, grad).reshape(-1), matrix @ grad.reshape(-1))


def test_starts_near_gradient_descent(episodes):
    ours = sine_learner(inner.LowRank(0.05)).adapt(episodes.support)
    plain = sine_learner(inner.SGD(0.05)).adapt(episodes.support)
    assert relative_difference(ours.params, plain.params) < 0.01


@pytest.mark.parametrize(("rank", "error"), [(0, ValueError), (1.5, TypeError)])
def test_bad_rank(rank, error):
    with pytest.raises(error, match="LowRank's rank"):
        inner.LowRank(0.1, rank)
