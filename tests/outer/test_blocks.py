"""`Stepwise` whose backward pass computes blocks of the model again, one by one."""

from copy import deepcopy

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
