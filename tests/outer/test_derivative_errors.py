"""Models without second derivatives: every advice is followed, and works."""

from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference, sine_episodes
from tests.outer.cases import assert_refused, learner
from tests.outer.test_architectures import gradient_by_hand

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")
BATCHINGS = [{}, {"batching": "loop"}]
SECOND_ORDER = [outer.Unrolled(), outer.Stepwise()]
FIRST_ORDER = [outer.Unrolled(order=1), outer.Stepwise(order=1)]
SAME = nn.Identity()
POOLS = {"mean": lambda h: h.mean(1), "sum": lambda h: h.sum(1), "max": lambda h: h.amax(1)}


class Pooled(nn.Module):
    """Means, sums or largest of word vectors, by a layer or by a function of them."""

    def __init__(self, table, pool):
        super().__init__()
        self.table, self.pool, self.head = table, pool, nn.Linear(3, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.pool(self.table(x))))


def pooled(table, pool=SAME):
    torch.manual_seed(0)
    return Pooled(table(7, 3), pool).double()


def tokens():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 7, (3, 5, 4), generator=generator)
    y = torch.randn(3, 5, 1, generator=generator, dtype=torch.float64)
    return Episode(Batch(x, y), Batch(x.flip(1), y))


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
@pytest.mark.parametrize("estimator", SECOND_ORDER, ids=str)
@pytest.mark.parametrize("mode", POOLS)
def test_bags_of_embeddings(mode, estimator, options):
    bag = pooled(lambda *size: nn.EmbeddingBag(*size, mode=mode))
    message = (
        "Write nn.Embedding and .mean(1), .sum(1) or .amax(1) in place of nn.EmbeddingBag, or use "
        "order 1: estim"
    )
    assert_refused(
        lambda: learner(bag, estimator=estimator, **options)(tokens()), ValueError, message
    )
    model = pooled(nn.Embedding, POOLS[mode])
    model.load_state_dict(bag.state_dict())
    torch.testing.assert_close(model(tokens().query.x[0]), bag(tokens().query.x[0]))
    made = learner(model, rule=inner.SGD(0.1), estimator=estimator, **options)
    assert (
        relative_difference(
            made.estimate(tokens()).gradient.init, gradient_by_hand(model, tokens())
        )
        < 1e-10
    )


@pytest.mark.parametrize("estimator", FIRST_ORDER, ids=str)
@pytest.mark.parametrize("padding_idx", [None, 0])
@pytest.mark.parametrize("mode", POOLS)
def test_bags_of_embeddings_at_order_1(mode, padding_idx, estimator):
    bag = pooled(lambda *size: nn.EmbeddingBag(*size, mode=mode, padding_idx=padding_idx))
    gradients = [
        learner(bag, estimator=estimator, **each).estimate(tokens(), keys()).gradient
        for each in BATCHINGS
    ]
    assert relative_difference(*gradients) < 1e-10
    if padding_idx is None:
        model = pooled(nn.Embedding, POOLS[mode])
        model.load_state_dict(bag.state_dict())
        assert (
            relative_difference(
                gradients[0], learner(model, estimator=estimator).estimate(tokens()).gradient
            )
            < 1e-10
        )


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
@pytest.mark.parametrize("estimator", [*SECOND_ORDER, *FIRST_ORDER], ids=str)
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients(kind, estimator, options):
    pool = POOLS["mean"] if kind is nn.Embedding else SAME
    model = pooled(lambda *size: kind(*size, sparse=True), pool)
    message = (
        "embeddings of the model must have dense gradients; got sparse=True. Write "
        "model.table.sparse = False."
    )
    assert_refused(lambda: learner(model, estimator=estimator, **options), ValueError, message)
    model.table.sparse = False
    if kind is nn.EmbeddingBag and estimator in SECOND_ORDER:
        return
    dense = pooled(kind, pool)
    one, other = (
        learner(each, estimator=estimator, **options).estimate(tokens(), keys())
        for each in (model, dense)
    )
    assert relative_difference(one.gradient, other.gradient) == 0


def test_sparse_gradients_of_constants_do_not_matter():
    model = pooled(lambda *size: nn.Embedding(*size, sparse=True), POOLS["mean"])
    model.table.requires_grad_(False)
    assert learner(model)(tokens()).isfinite()


@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.Unrolled(order=1), outer.ParameterDifference()], ids=str
)
def test_sparse_gradients_of_functions(estimator):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.sparse = nn.Parameter(torch.randn(7, 1, dtype=torch.float64)), True

        def forward(self, x):
            return F.embedding(x, self.weight, sparse=self.sparse).mean(1)

    message = (
        "model must have dense gradients; got sparse ones of ['model.weight']. Write sparse=False."
    )
    assert_refused(lambda: learner(Table(), estimator=estimator)(tokens()), ValueError, message)
    model = Table()
    model.sparse = False
    assert learner(model, estimator=estimator)(tokens()).isfinite()


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
def test_functions_without_second_derivatives(options):
    x, y = torch.randn(3, 5, 2), torch.randint(0, 4, (3, 5))
    episodes = Episode(Batch(x, y), Batch(x, y))

    def made(**more):
        return learner(nn.Linear(2, 4), F.multi_margin_loss, **options, **more)

    message = (
        "model must have second derivatives; got derivative for aten::multi_margin_loss_backward "
        "is not implemented."
    )
    assert_refused(lambda: made()(episodes), ValueError, message)
    assert_refused(
        lambda: made()(episodes), ValueError, "or use order 1: estimator=outer.Unrolled(order=1)."
    )
    for estimator in FIRST_ORDER:
        assert made(estimator=estimator)(episodes).isfinite()


@pytest.mark.parametrize("order", [1, 2])
def test_functions_without_first_derivatives(order):
    class Gamma(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.linear, self.function = nn.Linear(1, 1).double(), function

        def forward(self, x):
            return self.function(self.linear(x).exp())

    message = (
        "model must have first derivatives; got the derivative for 'igamma: input' is not "
        "implemented.."
    )
    options = {"estimator": outer.Unrolled(order), "batching": "loop"}
    made = learner(Gamma(lambda a: torch.igamma(a, torch.ones_like(a))), **options)
    assert_refused(
        lambda: made(sine_episodes()),
        ValueError,
        f"{message} Write it with other functions of PyTorch.",
    )
    torch.manual_seed(0)
    assert learner(Gamma(torch.lgamma), **options)(sine_episodes()).isfinite()


def test_other_errors_are_as_they_were():
    def fail(params, shared, episode, step):
        if torch.is_grad_enabled() and params["0.weight"].requires_grad:
            raise RuntimeError("of the user's own")
        return params["0.weight"].sum()

    with pytest.raises(RuntimeError, match="of the user's own"):
        learner(support_loss=fail)(sine_episodes())


def scaled(output, y, scale=1.0):
    return scale * F.mse_loss(output, y)


class Activated(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.body, self.head, self.activation = (
            nn.Linear(1, 4).double(),
            nn.Linear(4, 1).double(),
            activation,
        )

    def forward(self, x):
        return self.head(self.activation(self.body(x)))


def compiled(function):
    return torch.compile(function, backend="aot_eager")


class ByMethod(Activated):
    @compiled
    def activate(self, x):
        return torch.tanh(x)


COMPILED = {
    "a function as criterion": (
        lambda: learner(criterion=compiled(F.mse_loss)),
        "criterion",
        "itself",
    ),
    "a function of one's own": (lambda: learner(criterion=compiled(scaled)), "criterion", "itself"),
    "a partial": (
        lambda: learner(criterion=partial(compiled(scaled), scale=2.0)),
        "criterion",
        "itself",
    ),
    "a module as criterion": (
        lambda: learner(criterion=compiled(nn.MSELoss())),
        "criterion",
        "itself",
    ),
    "a criterion in place": (
        lambda: learner(criterion=in_place(nn.MSELoss())),
        "criterion",
        "itself",
    ),
    "the inner criterion": (
        lambda: learner(support_criterion=compiled(scaled)),
        "support_criterion",
        "itself",
    ),
    "the outer loss": (
        lambda: learner(
            query_loss=compiled(lambda params, shared, episode: params["0.weight"].sum())
        ),
        "query_loss",
        "itself",
    ),
    "an activation": (lambda: learner(Activated(compiled(torch.tanh))), "model", "activation"),
    "an activation of a part": (
        lambda: learner(nn.Sequential(Activated(compiled(F.gelu)))),
        "model",
        "0.activation",
    ),
    "a method": (lambda: learner(ByMethod(torch.tanh)), "model", "activate"),
}


def in_place(module):
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_parts_are_refused(name):
    make, what, part = COMPILED[name]
    message = (
        f"{what} must not be compiled; got torch.compile of {part}. Pass it uncompiled, and "
        "compile the whole"
    )
    assert_refused(make, ValueError, message)


GLOBAL = compiled(torch.tanh)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("options", [*BATCHINGS, {"compile": {"backend": "eager"}}], ids=str)
@pytest.mark.parametrize("estimator", SECOND_ORDER, ids=str)
def test_what_is_compiled_out_of_sight_is_explained(estimator, options):
    message = "model must call nothing compiled; got "
    for made in (
        learner(Activated(lambda h: GLOBAL(h)), estimator=estimator, **options),
        learner(
            criterion=lambda output, y: compiled(scaled)(output, y), estimator=estimator, **options
        ),
    ):
        assert_refused(lambda made=made: made(sine_episodes()), ValueError, message)


def test_the_advice_for_what_is_compiled():
    episodes, how = sine_episodes(), {"compile": {"backend": "eager"}}
    made = learner(Activated(torch.tanh), scaled, rule=inner.SGD(0.1), **how)
    assert (
        relative_difference(
            made.estimate(episodes).gradient.init, gradient_by_hand(made.model, episodes)
        )
        < 1e-10
    )
    not_compiled = torch.compiler.disable(torch.tanh)
    assert learner(Activated(not_compiled))(episodes).isfinite()
    assert learner(models.mlp(1, [4], 1).double(), torch.compiler.disable(scaled))(
        episodes
    ).isfinite()
