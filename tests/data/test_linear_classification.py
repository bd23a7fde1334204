import pytest
import torch
import torch.nn.functional as F

from metalearn._tree import tree_leaves
from metalearn.data import LinearClassification


def generator():
    return torch.Generator().manual_seed(0)


def test_shapes():
    episodes = LinearClassification(5, 7).sample(3, generator=generator())
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(episodes)]
    assert shapes == [(3, 5, 100), (3, 5, 1), (3, 7, 100), (3, 7, 1)]


def test_labels_are_balanced_targets_of_cross_entropy():
    y = LinearClassification(500, 500).sample(10, generator=generator()).query.y
    assert set(y.unique().tolist()) == {0.0, 1.0}
    assert abs(y.mean() - 0.5) < 0.05
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(torch.zeros_like(y), y), torch.tensor(2.0).log()
    )


def test_a_hyperplane_through_the_origin_separates_support_and_query():
    # In one dimension, the hyperplane is the origin and the sign of w is all there is to learn.
    support, query = LinearClassification(20, 20, dim=1).sample(30, generator=generator())
    sign = ((support.x > 0) == (support.y > 0)).all(dim=1, keepdim=True)
    assert torch.equal((query.x > 0) == sign, query.y > 0)
    assert 0 < sign.float().mean() < 1


def test_the_class_means_give_the_hyperplane():
    support, query = LinearClassification(4000, 1000, dim=5).sample(4, generator=generator())
    direction = ((2 * support.y - 1) * support.x).mean(dim=1, keepdim=True)
    predicted = (query.x * direction).sum(-1, keepdim=True) > 0
    assert (predicted == (query.y > 0)).float().mean() > 0.97


def test_inputs_are_standard_normal():
    x = LinearClassification(500, 500, dim=4).sample(10, generator=generator()).query.x
    torch.testing.assert_close(x.flatten(0, 1).mT.cov(), torch.eye(4), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"k_shot": 0},
            ValueError,
            r"k_shot must be at least 1; got 0\. Pass LinearClassification\(k_shot",
        ),
        ({"num_query": 0}, ValueError, "num_query must be at least 1; got 0"),
        ({"dim": 0}, ValueError, "dim must be at least 1; got 0"),
        ({"dim": 2.0}, TypeError, r"dim must be an int; got 2\.0"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        LinearClassification(**{"k_shot": 5, "num_query": 5} | arguments)
