import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn.search import OPERATORS, Block, Cell, Network, build, cost

EVERY = Cell(
    [Block(name, -1 - index % 2, "identity", index - 1) for index, name in enumerate(OPERATORS)]
)
TWO = Cell(
    [
        Block("sep_conv_3x3", -1, "max_pool_3x3", -2),
        Block("conv_1x7_7x1", 0, "identity", -1),
        Block("identity", -1, "identity", -2),
    ]
)
CONV = Cell([Block("conv_3x3", -1, "identity", -2)])


@pytest.fixture
def tasks():
    images = data.ClassImages(
        torch.randint(256, (6, 4, 8, 8), generator=torch.manual_seed(0)).byte()
    )
    return data.EpisodeSampler(images, 3, 1, 2)


# Of 4 channels on 5 x 5 pixels: multiply-adds of a pixel.
EACH = {"identity": 0, "sep_conv_3x3": 36 + 16, "sep_conv_5x5": 100 + 16, "sep_conv_7x7": 196 + 16}
EACH |= {
    "conv_1x7_7x1": 2 * 7 * 16,
    "dil_conv_3x3": 144,
    "avg_pool_3x3": 0,
    "max_pool_3x3": 0,
    "conv_3x3": 144,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_counts_of_every_operator(name):
    network = Network(Cell([Block(name, -1, "identity", -2)]), 1, 4)
    counted = cost(network, 2, 5, image_size=9)
    stem, squeeze, head = 2 * 9 * 4, 2 * 16, 20
    assert counted.multiply_adds == 25 * (stem + squeeze + EACH[name]) + head
    norms = 3 + (EACH[name] > 0)
    assert counted.parameters == stem + squeeze + EACH[name] + head + 5 + norms * 8
    model = build(network, 2, 5, image_size=9)
    assert counted.parameters == sum(param.numel() for param in model.parameters())
    assert model(torch.zeros(3, 2, 9, 9)).shape == (3, 5)


@pytest.mark.parametrize(("inputs", "cells"), [((-2, -2), {"0", "2"}), ((-1, -1), {"0", "1", "2"})])
def test_nothing_is_built_that_is_not_used(tasks, inputs, cells):
    model = build(
        Network(Cell([Block("conv_3x3", inputs[0], "identity", inputs[1])]), 3, 2),
        1,
        3,
        image_size=8,
    )
    assert set(model.features[0].cells) == cells
    learner = outer.Reptile(model, F.cross_entropy, inner.SGD(0.1), num_steps=1)
    assert learner(tasks.sample(2)).isfinite()
    model(torch.zeros(2, 1, 8, 8)).sum().backward()
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize("source", ["transductive", "support", "per_step"])
def test_it_is_meta_learned(tasks, source):
    steps = {"num_steps": 2} if source == "per_step" else {}
    model = build(Network(TWO, 2, 3), 1, 3, image_size=8, batch_statistics=source, **steps)
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=2)
    learner(tasks.sample(2)).backward()
    assert all(param.grad.isfinite().all() for param in learner.parameters())
    assert models.batch_statistics(model) == ("transductive" if source == "per_step" else source)


def test_vmap_agrees_with_a_loop_on_every_operator(tasks):
    model = build(Network(EVERY, 1, 2), 1, 3, image_size=8).double()
    episodes, losses = tasks.sample(2), []
    episodes = type(episodes)(*(part._replace(x=part.x.double()) for part in episodes))
    gradients = []
    for batching in ("vmap", "loop"):
        learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=1, batching=batching)
        loss = learner(episodes)
        losses.append(loss.item())
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))])
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_the_head_alone_adapts(tasks):
    learner = outer.ANIL(
        build(Network(CONV, 1, 2), 1, 3, image_size=8), F.cross_entropy, inner.SGD(0.1), num_steps=1
    )
    assert learner(tasks.sample(2)).isfinite()


def test_an_operator_of_ones_own(monkeypatch):
    monkeypatch.setitem(OPERATORS, "tanh", lambda channels: nn.Tanh())
    monkeypatch.setitem(OPERATORS, "shrink", lambda channels: nn.AvgPool2d(2))
    monkeypatch.setitem(OPERATORS, "narrow", lambda channels: nn.Conv2d(channels, 1, 1))
    monkeypatch.setitem(OPERATORS, "function", lambda channels: torch.tanh)
    assert build(Network(Cell([Block("tanh", -1, "tanh", -2)])), 1, 5)(
        torch.zeros(2, 1, 28, 28)
    ).shape == (2, 5)
    for name in ("shrink", "narrow"):
        with pytest.raises(
            ValueError, match=rf"operator '{name}' must keep the shape .* Pad its convolutions"
        ):
            build(Network(Cell([Block(name, -1, "identity", -2)])), 1, 5)
    with pytest.raises(
        TypeError, match="operator 'function' must be a function from channels to a module"
    ):
        build(Network(Cell([Block("function", -1, "identity", -2)])), 1, 5)


BAD = [
    (lambda: build(CONV, 1, 5), TypeError, "Pass Network(cell)"),
    (lambda: build(Network(CONV), 0, 5), ValueError, "in_channels must be at least 1"),
    (lambda: build(Network(CONV), 1, 5, image_size=7), ValueError, "num_cells=2"),
    (
        lambda: build(Network(CONV), 1, 5, batch_statistics="suport"),
        ValueError,
        "Did you mean 'support'?",
    ),
    (lambda: cost(Network(CONV), 1, 0), ValueError, "num_classes must be at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
