from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import orthogonal

from metalearn import data, inner, models, outer
from tests.outer.cases import assert_refused

CUT = partial(nn.init.trunc_normal_, std=0.01, a=-0.02, b=0.02)
VARIANCE = 0.7737413
"""That of a standard normal variable cut at two: 1 - 4 pdf(2) / (cdf(2) - cdf(-2))."""


def test_moments_of_the_cut_normal_distribution():
    model = models.init_(models.mlp(300, [400, 400], 1), weights=CUT, biases=nn.init.zeros_)
    weights = torch.cat([layer.weight.detach().flatten() for layer in model[::2]]).double() / 0.01
    count = len(weights)
    assert weights.abs().max() <= 2.0001
    assert abs(weights.mean()) < 4 * (VARIANCE / count) ** 0.5
    assert abs(weights.var() - VARIANCE) < 4 * (2 / count) ** 0.5
    assert not any(layer.bias.any() for layer in model[::2])


def test_a_seed_decides():
    def starts(seed):
        torch.manual_seed(seed)
        return models.init_(models.mlp(1, [4], 1), weights=CUT)[0].weight

    assert torch.equal(starts(0), starts(0))
    assert not torch.equal(starts(0), starts(1))
    generator = torch.Generator()
    own = partial(CUT, generator=generator)
    ours = []
    for _ in range(2):
        generator.manual_seed(3)
        ours.append(models.init_(models.mlp(1, [4], 1), weights=own)[0].weight)
    assert torch.equal(*ours)


def test_what_is_not_given_stays():
    model = models.mlp(1, [4], 1)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    assert models.init_(model, biases=nn.init.ones_) is model
    for name, param in model.named_parameters():
        expected = torch.ones_like(param) if name.endswith("bias") else before[name]
        assert torch.equal(param, expected)
        assert param.requires_grad


def test_any_module():
    """Convolutions, recurrent layers and attention; scales of normalisation layers are no
    weights."""
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "norm": nn.BatchNorm2d(2),
            "rnn": nn.GRU(3, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "table": nn.Embedding(5, 4),
        }
    )
    models.init_(
        model,
        weights=partial(nn.init.constant_, val=3.0),
        biases=partial(nn.init.constant_, val=7.0),
    )
    for name, param in model.named_parameters():
        expected = 7.0 if "bias" in name else 1.0 if name == "norm.weight" else 3.0
        assert (param == expected).all(), name


def test_a_t_net_starts_at_the_same_function():
    torch.manual_seed(0)
    model = models.init_(models.mlp(1, [4], 1), weights=CUT, biases=nn.init.zeros_)
    x = torch.randn(3, 1)
    before = model(x)
    torch.testing.assert_close(inner.t_net(model)(x), before)
    learner = outer.TNet(model, F.mse_loss, inner.SGD(0.01), num_steps=1)
    assert learner(data.Sinusoid(5, 5).sample(2)).isfinite()


BAD = {
    "no module": (
        lambda: models.init_("mlp", biases=nn.init.zeros_),
        TypeError,
        "init_'s model must be an nn.Module",
    ),
    "nothing": (
        lambda: models.init_(nn.Linear(1, 1)),
        ValueError,
        "got neither. Write models.init_(model, biases=",
    ),
    "a name": (
        lambda: models.init_(nn.Linear(1, 1), weights="zeros"),
        TypeError,
        "fills a tensor in place; got 'zeros'",
    ),
    "no biases": (
        lambda: models.init_(nn.Linear(1, 1, bias=False), biases=nn.init.zeros_),
        ValueError,
        "init_'s biases must have something to fill; got none. Leave biases out.",
    ),
    "not in place": (
        lambda: models.init_(nn.Linear(1, 1), weights=torch.zeros_like),
        ValueError,
        "init_'s weights must fill weight in place",
    ),
    "lazy": (lambda: models.init_(nn.LazyLinear(1), biases=nn.init.zeros_), ValueError, "model(x)"),
    "parametrized": (
        lambda: models.init_(nn.Sequential(orthogonal(nn.Linear(2, 2))), weights=nn.init.zeros_),
        ValueError,
        "got parametrizations of ['0']. Call init_ before",
    ),
    "a T-net": (
        lambda: models.init_(inner.t_net(models.mlp(1, [2], 1)), weights=nn.init.zeros_),
        ValueError,
        "got a T-net. Write inner.t_net(models.init_(model, ...)).",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
