import torch

from metalearn import inner
from metalearn._tree import tree_map


def transformed(shape):
    torch.manual_seed(0)
    rule, grad = inner.MetaCurvature(0.1), torch.randn(shape, dtype=torch.float64)
    weights = tree_map(torch.randn_like, rule.init_weights("w", grad))
    return grad, weights, rule.transform(weights, grad)


def test_a_convolution_has_three_factors():
    grad, weights, result = transformed((4, 3, 2, 5))
    by_mode = torch.einsum(
        "oO,iI,OIk,kK->oiK", weights["out"], weights["in"], grad.flatten(2), weights["kernel"]
    )
    torch.testing.assert_close(result, by_mode.reshape(grad.shape))


def test_a_matrix_has_two():
    grad, weights, result = transformed((4, 3))
    torch.testing.assert_close(result, weights["out"] @ grad @ weights["in"])


def test_a_vector_is_scaled():
    grad, weights, result = transformed((4,))
    torch.testing.assert_close(result, weights["scale"] * grad)
