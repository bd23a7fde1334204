import itertools

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn.analysis import taylor_terms
from metalearn.types import Batch, Episode

NUM_TASKS, SIZE = 3, 4


def batches(k):
    x, y = torch.randn(2, NUM_TASKS, k, SIZE, 1, generator=torch.manual_seed(0)).double()
    return Batch(x, y)


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def test_against_plain_autograd():
    net, data = model(), batches(3)
    params = list(net.parameters())
    total, inner_total = (
        [torch.zeros_like(p) for p in params],
        [torch.zeros_like(p) for p in params],
    )
    for task in range(NUM_TASKS):
        grads = [
            torch.autograd.grad(
                F.mse_loss(net(data.x[task, i]), data.y[task, i]), params, create_graph=True
            )
            for i in range(3)
        ]
        for i in range(3):
            total = [t + g / 9 for t, g in zip(total, grads[i], strict=True)]
        for i, j in itertools.combinations(range(3), 2):
            product = sum((a * b).sum() for a, b in zip(grads[i], grads[j], strict=True))
            half = torch.autograd.grad(product / 2, params, retain_graph=True)
            inner_total = [t + g / 9 for t, g in zip(inner_total, half, strict=True)]
    terms = taylor_terms(net, F.mse_loss, data)
    for found, expected in zip(terms, (total, inner_total), strict=True):
        for name, tensor in zip(found, expected, strict=True):
            torch.testing.assert_close(found[name], tensor.detach(), rtol=1e-10, atol=1e-13)


def test_weights_and_keywords_reach_criterion_and_model():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model()

        def forward(self, inputs, scale):
            return scale * self.net(inputs)

    def weighted(output, y, weight):
        return (weight * (output - y).square().mean(-1)).sum() / weight.sum()

    data, padding = batches(2), torch.ones(NUM_TASKS, 2, SIZE).double()
    padding[..., 3:] = 0
    x = {"inputs": data.x, "scale": torch.ones_like(data.x)}
    found = taylor_terms(Scaled(), weighted, Batch(x, data.y, padding))
    expected = taylor_terms(model(), F.mse_loss, Batch(data.x[:, :, :3], data.y[:, :, :3]))
    for terms, plain in zip(found, expected, strict=True):
        for name, tensor in plain.items():
            torch.testing.assert_close(terms[f"net.{name}"], tensor, rtol=1e-10, atol=1e-13)


def meta_gradient(method, data, k, alpha):
    """Return the mean over all orders of the mini-batches."""
    orders = list(itertools.permutations(range(k)))
    x, y = (torch.cat([leaf[:, list(order)] for order in orders]) for leaf in (data.x, data.y))
    steps = k if method == "Reptile" else k - 1
    estimator = {
        "MAML": outer.Unrolled(),
        "FOMAML": outer.Unrolled(order=1),
        "Reptile": outer.ParameterDifference(),
    }[method]
    learner = outer.MetaLearner(
        model(),
        F.mse_loss,
        inner.SGD(alpha),
        num_steps=steps,
        estimator=estimator,
        support_batches=functional.GivenBatches(),
    )
    episodes = Episode(Batch(x[:, :steps], y[:, :steps]), Batch(x[:, -1], y[:, -1]))
    gradient = learner.estimate(episodes).gradient.init
    return {n: g / alpha if method == "Reptile" else g for n, g in gradient.items()}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("method", ["MAML", "FOMAML", "Reptile"])
def test_the_papers_coefficients(method, k):
    data, alpha = batches(k), 1e-4
    terms = taylor_terms(model(), F.mse_loss, data)
    of_first, of_second = {
        "MAML": (1, 2 * (k - 1)),
        "FOMAML": (1, k - 1),
        "Reptile": (k, k * (k - 1) / 2),
    }[method]
    errors = []
    for rate in (alpha, alpha / 2):
        found = meta_gradient(method, data, k, rate)
        errors.append(
            max(
                (
                    found[name]
                    - of_first * terms.average_gradient[name]
                    + of_second * rate * terms.average_inner_gradient[name]
                )
                .abs()
                .max()
                .item()
                for name in found
            )
        )
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)  # what is left is of second order


def test_bad_input():
    with pytest.raises(ValueError, match="two mini-batches or more"):
        taylor_terms(
            models.mlp(1, [2], 1), F.mse_loss, Batch(torch.ones(2, 1, 3, 1), torch.ones(2, 1, 3, 1))
        )
    with pytest.raises(TypeError, match="model must be a module"):
        taylor_terms(3, F.mse_loss, batches(2))
