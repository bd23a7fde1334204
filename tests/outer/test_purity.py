"""How sharp the comparison of a model with its copies is."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn._tree import tree_detach
from metalearn.outer._checks._purity import compare
from tests.cases import sine_episodes, task


class Slightly(nn.Module):
    """A network of which a small share is computed with a weight from another place."""

    def __init__(self, share):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.share = models.mlp(1, [8], 1), share
        self.kept = [self.body[2].weight.detach().clone()]

    def forward(self, x):
        h = torch.tanh(self.body[0](x))
        return F.linear(
            h, (1 - self.share) * self.body[2].weight + self.share * self.kept[0], self.body[2].bias
        )


def found(model, dtype, order=2):
    learner = outer.MAML(model.to(dtype), F.mse_loss, inner.SGD(0.1), num_steps=1)
    return compare(
        learner.problem, tree_detach(learner.meta), task(sine_episodes(dtype=dtype)), order
    )


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_tolerance_is_that_of_the_dtype_unless_float64_decides(order):
    exact = found(models.mlp(1, [8], 1), torch.float32, order)
    assert exact.equal
    assert exact.tolerance in (
        torch.finfo(torch.float32).eps ** 0.5 / 10,
        torch.finfo(torch.float64).eps ** 0.5 / 10,
    )
    assert (
        found(models.mlp(1, [8], 1), torch.bfloat16, order).tolerance
        == torch.finfo(torch.float64).eps ** 0.5 / 10
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_small_share_of_a_stale_weight_is_found(dtype):
    assert not found(_of_the_list(Slightly(1e-3)), dtype).equal


def _of_the_list(model):
    model.kept[0] = model.body[2].weight
    return model


class OfOneDtype(nn.Module):
    """A model that takes float32 alone."""

    def __init__(self, share=0.0):
        super().__init__()
        self.layer, self.constant = nn.Linear(1, 1), torch.ones(1, 1)
        self.kept, self.share = [self.layer.weight], share

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("expected float32")
        return F.linear(
            x, (1 - self.share) * self.layer.weight + self.share * self.kept[0], self.layer.bias
        )


def test_a_model_that_float64_cannot_decide_is_judged_in_its_own_dtype():
    assert found(OfOneDtype(), torch.float32).equal
    assert not found(OfOneDtype(1.0), torch.float32).equal
