"""`Stepwise` whose backward pass computes blocks of the model again, one by one."""

from contextlib import nullcontext
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalearn import inner, outer, testing
from metalearn.types import Batch, Episode
from tests.cases import relative_difference, sine_episodes

WIDTH, LENGTH, TOKENS = 8, 5, 7


class Block(nn.Module):
    """A block with attention, and outputs and arguments of several kinds."""

    def __init__(self, dropout):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("scale", torch.full((), 0.5))

    def forward(self, x, mask, *, after):
        query, key, value = self.attention(self.norm(x)).chunk(3, -1)
        scores = (query @ key.mT * self.scale).masked_fill(mask, -1e9)
        x = x + self.dropout(scores.softmax(-1)) @ value
        return {"x": x + self.narrow(F.gelu(self.wide(x))), "count": after + 1}


class Model(nn.Module):
    """A model of tokens whose blocks are called in turns, one of them twice."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.token, self.head = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, TOKENS)
        self.layers = nn.ModuleList(Block(dropout) for _ in range(3))

    def forward(self, tokens):
        x, count = self.token(tokens), torch.zeros((), dtype=torch.int64)
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        for layer in (*self.layers, self.layers[0]):
            x, count = layer(x, mask, after=count).values()
        assert count.dtype == torch.int64
        return self.head(x).mT


def episodes(num_tasks=2):
    tokens = torch.randint(TOKENS, (num_tasks, 2, 6, LENGTH + 1), generator=torch.manual_seed(3))
    support, query = (Batch(part[..., :-1], part[..., 1:]) for part in tokens.unbind(1))
    return Episode(support, query)


def estimate(estimator, model=None, rule=None, **options):
    rule = rule or inner.SGD(0.1)
    options = {"num_steps": 4, "estimator": estimator, **options}
    learner = outer.MetaLearner((model or Model()).double(), F.cross_entropy, rule, **options)
    given = episodes()
    torch.manual_seed(1)
    return learner.estimate(given, torch.arange(2)), torch.rand(())


def assert_equal(model, rule=None, blocks="layers.*", **options):
    """Compare with `Unrolled`, the model as it was afterwards."""
    before = [dict(vars(module)) for module in model.modules()]
    left, left_after = estimate(outer.Stepwise(blocks=blocks), model, rule, **options)
    assert before == [dict(vars(module)) for module in model.modules()]
    options = {**options, "batching": "loop"}
    right, right_after = estimate(outer.Unrolled(), model, rule, **options)
    assert relative_difference(left.gradient, right.gradient) < 1e-10
    torch.testing.assert_close(left.loss, right.loss, rtol=1e-12, atol=0)
    assert left_after == right_after


@pytest.mark.parametrize(
    "rule", [inner.SGD(0.1), inner.Adam(0.01), inner.MetaSGD(0.1), inner.MetaCurvature(0.1)]
)
@pytest.mark.parametrize("blocks", ["layers.*", "layers.[12]", "*", "*.attention"])
def test_the_gradient_is_that_of_unrolled(rule, blocks):
    assert_equal(Model(), rule, blocks)


def test_dropout_within_blocks():
    assert_equal(Model(dropout=0.3))


@pytest.mark.parametrize("fast", ["head", "layers.1", "layers.*.norm"])
def test_parts_that_do_not_adapt(fast):
    assert_equal(Model(), fast=fast)


def test_frozen_blocks_and_own_forwards():
    model = Model()
    model.layers[1].requires_grad_(False)
    forward = model.layers[2].forward
    model.layers[2].forward = lambda *args, **kwargs: forward(*args, **kwargs)
    assert_equal(model)


def test_known_layers_are_called_as_modules():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    gradients = []
    for estimator in (outer.Unrolled(), outer.Stepwise(blocks="[01]")):
        learner = outer.MAML(model(), F.mse_loss, inner.SGD(0.1), num_steps=3, estimator=estimator)
        gradients.append(learner.estimate(sine_episodes(), torch.arange(3)).gradient)
    assert relative_difference(*gradients) < 1e-10


class Residual(nn.Module):
    """A model of layers that are added to what they are given, with a head that has no block."""

    def __init__(self, block, autocast=False):
        super().__init__()
        torch.manual_seed(0)
        self.token, self.autocast = nn.Embedding(TOKENS, WIDTH), autocast
        self.layers = nn.ModuleList(block() for _ in range(2))

    def forward(self, tokens):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            x = self.token(tokens)
            for layer in self.layers:
                x = x + layer(x)
            return (x @ self.token.weight.mT).mT.to(self.token.weight.dtype)


class Wide(nn.Module):
    """Two layers, the dtype of whose activations is asserted."""

    def __init__(self, dtype=torch.bfloat16):
        super().__init__()
        self.one, self.two, self.dtype = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH), dtype

    def forward(self, x):
        wide = self.one(x)
        assert wide.dtype in (self.dtype, torch.float64)  # a check is made in that, without
        return self.two(wide.tanh())


def gradients_in_float32(model, around=nullcontext):
    gradients = []
    for estimator in (outer.Stepwise(blocks="layers.*"), outer.Unrolled()):
        options = {"num_steps": 2, "estimator": estimator, "batching": "loop"}
        learner = outer.MetaLearner(deepcopy(model), F.cross_entropy, inner.SGD(0.1), **options)
        with around():
            gradients.append(learner.estimate(episodes()).gradient)
    return gradients


def test_autocast_within_the_model_is_there_again():
    left, right = gradients_in_float32(Residual(Wide, autocast=True))
    assert relative_difference(left, right) < 5e-3  # 0.014 in float32


def test_autocast_around_the_learner():
    around = partial(torch.autocast, "cpu", torch.bfloat16)
    left, right = gradients_in_float32(Residual(Wide, autocast=True), around)
    assert relative_difference(left, right) < 1e-2


def test_no_autocast_within_autocast():
    class Without(Residual):
        def forward(self, tokens):
            with torch.autocast("cpu", enabled=False):
                return super().forward(tokens)

    around = partial(torch.autocast, "cpu", torch.bfloat16)
    left, right = gradients_in_float32(Without(partial(Wide, torch.float32)), around)
    assert relative_difference(left, right) < 1e-2


def test_casts_of_a_block_are_not_those_of_its_surroundings():
    class Tied(Residual):
        def forward(self, tokens):
            with torch.autocast("cpu", torch.bfloat16):
                x = self.layers[1](self.layers[0](self.token(tokens)))
                return F.linear(x, self.layers[0].one.weight).float().mT  # cast in the block

    left, right = gradients_in_float32(Tied(Wide))
    assert relative_difference(left, right) < 1e-2


def test_attention_by_the_kernel_that_the_model_is_called_with():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(WIDTH, 3 * WIDTH)

        def forward(self, x):
            query, key, value = self.project(x)[:, None].chunk(3, -1)
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0]

    assert_equal(Residual(Attention))


def test_outputs_that_are_no_tensors():
    class Several(nn.Linear):
        def forward(self, x):
            return super().forward(x), None, 3, {"name": "several", "x": x, "size": len(x)}

    class Calls(Residual):
        def forward(self, tokens):
            x = self.token(tokens)
            for layer in self.layers:
                y, nothing, three, rest = layer(x)
                assert (nothing, three, rest["name"]) == (None, 3, "several")
                x = y.tanh() * three + rest["x"] / rest["size"]
            return (x @ self.token.weight.mT).mT

    assert_equal(Calls(partial(Several, WIDTH, WIDTH)))


def test_outputs_of_which_none_is_a_tensor():
    class Size(nn.Module):
        def forward(self, x):
            return len(x)

    assert_equal(Residual(Size))


def test_arguments_of_which_none_is_a_tensor():
    class Double(nn.Module):
        def forward(self, number):
            return 2 * number

    class Calls(Residual):
        def forward(self, tokens):
            by = self.layers[1](self.layers[0](0.25))
            return (self.token(tokens) @ self.token.weight.mT).mT.tanh() * by

    assert_equal(Calls(Double))


def test_complex_outputs():
    class Spectrum(nn.Linear):
        def forward(self, x):
            return torch.fft.rfft(super().forward(x).tanh())

    class Calls(Residual):
        def forward(self, tokens):
            x = self.token(tokens)
            for layer in self.layers:
                x = x + torch.fft.irfft(layer(x) ** 2, WIDTH)
            return (x @ self.token.weight.mT).mT

    assert_equal(Calls(partial(Spectrum, WIDTH, WIDTH)))


def test_attributes_that_change_during_the_forward_pass():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.scale, self.calls = nn.Linear(WIDTH, WIDTH), 1, 0

        def forward(self, x):
            self.calls += 1
            self.linear.last = None if self.calls > 2 else "before"
            by = self.shift if hasattr(self, "shift") else 0.0
            return (self.linear(x) * self.scale + by).tanh() * self.calls

    class Calls(Residual):
        def forward(self, tokens):
            x = self.token(tokens)
            for layer in self.layers:
                layer.calls = 0
                vars(layer).pop("shift", None)
                for scale in (1, 2, 3):
                    layer.scale = scale
                    x = x + layer(x)
                    layer.shift = torch.full((), 0.1 * scale, dtype=x.dtype)
            return (x @ self.token.weight.mT).mT

    model = Calls(Scaled)
    left, _ = estimate(outer.Stepwise(blocks="layers.*"), model)
    assert model.layers[0].calls == 3
    right, _ = estimate(outer.Unrolled(), model, batching="loop")
    assert relative_difference(left.gradient, right.gradient) < 1e-10


def test_memory_is_that_of_one_block():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            parts = nn.Linear(8, 32), nn.Tanh(), nn.GELU(), nn.Linear(32, 8)
            self.layers = nn.Sequential(*(nn.Sequential(*deepcopy(parts)) for _ in range(8)))

        def forward(self, x):
            return self.layers(x)

    x = torch.randn(1, 2000, 8)
    given = Episode(Batch(x, x), Batch(x, x))
    peaks, gradients = [], []
    for blocks in (None, "layers.*"):
        options = {"num_steps": 2, "estimator": outer.Stepwise(blocks=blocks)}
        learner = outer.MetaLearner(Deep(), F.mse_loss, inner.SGD(0.1), **options)
        gradients.append(learner.estimate(given).gradient)
        peaks.append(testing.peak_live_bytes(lambda learner=learner: learner.estimate(given)))
    assert relative_difference(*gradients) < 1e-5
    assert peaks[1] < 0.4 * peaks[0]


def test_autocast_keeps_no_copies_of_blocks():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            parts = nn.Linear(8, 2000), nn.Tanh(), nn.Linear(2000, 8)
            self.layers = nn.Sequential(*(nn.Sequential(*deepcopy(parts)) for _ in range(8)))

        def forward(self, x):
            return self.layers(x).float()

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            learner.estimate(Episode(Batch(x, x), Batch(x, x)))

    x, estimator = torch.randn(1, 4, 8), outer.Stepwise(blocks="layers.*")
    options = {"num_steps": 2, "estimator": estimator}
    learner = outer.MetaLearner(Deep(), F.mse_loss, inner.SGD(0.1), **options)
    run()  # with checks
    copies = testing.peak_live_bytes(run) / sum(param.nbytes for param in learner.parameters())
    assert copies < 5.8  # 5.4, and 6.2 to 7.0 with the casts of all blocks


def test_a_third_derivative_is_refused():
    estimator = outer.Stepwise(blocks="layers.*")
    learner = outer.MetaLearner(
        Model().double(), F.cross_entropy, inner.SGD(0.1), num_steps=2, estimator=estimator
    )
    task = Episode(*(Batch(batch.x[0], batch.y[0]) for batch in episodes()))
    with pytest.raises(RuntimeError, match="derivatives by blocks must be two; got the graph"):
        estimator(learner.problem, learner.meta, task, torch.tensor(0), ())


def test_compiling_warns():
    learner = outer.MetaLearner(
        Model().double(),
        F.cross_entropy,
        inner.SGD(0.1),
        num_steps=2,
        estimator=outer.Stepwise(blocks="layers.*"),
        compile={"backend": "eager"},
    )
    with pytest.warns(outer.NotCompiledWarning, match="blocks must be computed by plain autograd"):
        learner(episodes())


def test_what_is_no_block_is_refused():
    with pytest.raises(TypeError, match="blocks must be a pattern of names; got 3"):
        outer.Stepwise(blocks=3)
    with pytest.raises(ValueError, match=r"got 'layer.\*', where it has \['token', 'head', 'lay"):
        estimate(outer.Stepwise(blocks="layer.*"))
