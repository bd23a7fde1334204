"""Models that are no function of the parameters that they are given are exact or refused, never
silently wrong."""

import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from metalearn import functional, inner, models, outer
from metalearn.types import Batch, Episode
from tests.cases import relative_difference, sine_episodes, task
from tests.outer.cases import assert_refused


class Net(nn.Module):
    """Two layers, whose second one's weight a subclass finds somewhere."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(1, 6).double(), nn.Linear(6, 1).double()
        self.prepare()

    def prepare(self):
        pass

    def weight(self):
        return self.head.weight

    def forward(self, x):
        return F.linear(torch.tanh(self.body(x)), self.weight(), self.head.bias)


class InAList(Net):
    def prepare(self):
        self.weights = [self.head.weight.detach()]

    def weight(self):
        return self.weights[0] + 0 * self.head.weight


class InAClosure(Net):
    def prepare(self):
        weight = self.head.weight
        self.weight = lambda: weight.detach() + 0 * self.head.weight


class InADefault(Net):
    def prepare(self):
        def weight(of=self.head.weight):
            return of.detach() + 0 * self.head.weight

        self.weight = weight


class InAPartial(Net):
    def prepare(self):
        self.kept = partial(torch.Tensor.detach, self.head.weight)

    def weight(self):
        return self.kept() + 0 * self.head.weight


class InAClass(Net):
    def prepare(self):
        InAClass.kept = self.head.weight.detach()

    def weight(self):
        return self.kept + 0 * self.head.weight


class InAView(Net):
    """A tensor that shares the weight's memory."""

    def prepare(self):
        self.flat = self.head.weight.data.view(-1)

    def weight(self):
        return self.flat.view(1, -1) + 0 * self.head.weight


class InACache(Net):
    """The first weight that a call sees serves all later ones."""

    def prepare(self):
        self.cache = {}

    def weight(self):
        return self.cache.setdefault("weight", self.head.weight.detach()) + self.head.weight


class Remembering(Net):
    """An attribute of a hook: the weight of the call before."""

    def prepare(self):
        self.last = torch.zeros(1, 6).double()
        self.head.register_forward_pre_hook(self.remember)

    def remember(self, module, inputs):
        self.last = module.weight.detach()

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return F.linear(h, self.last) + self.head(h)


class Counting(Net):
    def prepare(self):
        self.count = 1

    def weight(self):
        self.count += 1
        return self.head.weight * self.count


class DrawingByItself(Net):
    def prepare(self):
        self.generator = torch.Generator().manual_seed(0)

    def weight(self):
        return self.head.weight * torch.rand((), generator=self.generator).double()


class OfAnotherModule(Net):
    def prepare(self):
        other = nn.Linear(6, 1).double()
        other.weight.data = self.head.weight.data
        self.others = (other.requires_grad_(False),)

    def weight(self):
        return self.others[0].weight + 0 * self.head.weight


IN_SOME_PLACE = (
    InAList,
    InAClosure,
    InADefault,
    InAPartial,
    InAClass,
    InAView,
    InACache,
    OfAnotherModule,
)
OWN = dict.fromkeys(
    IN_SOME_PLACE, "that it is given; got others in the place of ['model.head.weight']"
)
CHANGING = {
    Remembering: "model must",
    Counting: "as ['model.count'] do",
    DrawingByItself: "outputs that change from call to call",
}


def learner(model, **options):
    return outer.MAML(model, F.mse_loss, inner.SGD(0.1), **{"num_steps": 2, **options})


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize(("kind", "message"), (OWN | CHANGING).items())
def test_an_impure_model_is_refused_by_name(kind, message, batching):
    learned = learner(kind(), batching=batching)
    before = copy.deepcopy(learned.state_dict())
    assert_refused(lambda: learned(sine_episodes()), ValueError, message)
    assert_refused(lambda: learned.adapt(sine_episodes().support), ValueError, message)
    with torch.no_grad():
        assert_refused(lambda: learned(sine_episodes()), ValueError, message)
    assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())


class Uncopied(Net):
    """A model that knows itself by a number."""

    def prepare(self):
        self.known = {id(self): 1.0}

    def weight(self):
        return self.head.weight * self.known[id(self)]


def test_a_model_that_cannot_be_copied_is_named():
    message = "model must be one that can be copied; got KeyError in a copy: "
    assert_refused(lambda: learner(Uncopied())(sine_episodes()), ValueError, message)
    learner(Uncopied(), check_model=False)(sine_episodes())


def test_the_check_can_be_switched_off():
    learner(InAList(), check_model=False)(sine_episodes())
    assert_refused(
        lambda: learner(Net(), check_model="no"), TypeError, "check_model must be True or False"
    )


class Checkpointed(Net):
    """The body is computed again in the backward pass."""

    def hidden(self, x):
        return torch.tanh(self.head.weight * self.body(x))

    def forward(self, x):
        return self.head(checkpoint(self.hidden, x, use_reentrant=False))


class Plain(Checkpointed):
    def forward(self, x):
        return self.head(self.hidden(x))


ESTIMATORS = [
    outer.Unrolled(),
    outer.Unrolled(order=1),
    outer.Unrolled(truncate=1),
    outer.Stepwise(),
    outer.Stepwise(order=1),
    outer.Stepwise(segment=1),
    outer.Implicit(2.0),
    outer.ParameterDifference(),
    outer.ClipPerTask(outer.Unrolled(), 1.0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_checkpoint_sees_the_parameters_of_its_own_call(estimator):
    exact, ours = (
        learner(kind(), estimator=estimator, batching="loop", num_steps=3).estimate(
            sine_episodes(), torch.arange(3)
        )
        for kind in (Plain, Checkpointed)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12
    assert relative_difference(ours.loss, exact.loss) < 1e-12


def test_one_task_and_chunks_of_one_need_no_loop():
    one = tuple(torch.arange(1)), sine_episodes(1)
    for options in ({}, {"chunk_size": 1}):
        exact, ours = (
            learner(kind(), **options).estimate(one[1], torch.arange(1))
            for kind in (Plain, Checkpointed)
        )
        assert relative_difference(ours.gradient, exact.gradient) < 1e-12
    exact, ours = (
        learner(kind(), chunk_size=1).estimate(sine_episodes(), torch.arange(3))
        for kind in (Plain, Net)
    )
    assert relative_difference(ours.gradient, exact.gradient) > 1e-3  # the two models differ


def test_adaptation_through_a_checkpoint_is_exact():
    exact, ours = (
        learner(kind(), batching="loop").adapt(sine_episodes().support)
        for kind in (Plain, Checkpointed)
    )
    assert relative_difference(ours.params, exact.params) < 1e-12
    x = sine_episodes().query.x
    assert relative_difference(ours(x), exact(x)) < 1e-12
    assert relative_difference(ours[1](x[1]).detach(), exact(x)[1]) < 1e-12


def test_a_model_that_is_computed_again_is_refused_where_it_would_be_traced():
    message = "be called task by task; got vmap. Choose batching='loop'"
    assert_refused(lambda: learner(Checkpointed())(sine_episodes()), ValueError, message)
    compiled = learner(Checkpointed(), batching="loop", compile={"backend": "eager"})
    assert_refused(lambda: compiled(sine_episodes()), ValueError, "not be compiled")


class Reentrant(Checkpointed):
    def forward(self, x):
        return self.head(checkpoint(torch.tanh, self.body(x), use_reentrant=True))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_reentrant_checkpoint_is_told_of_the_other_kind(estimator):
    learned = learner(Reentrant(), estimator=estimator, batching="loop")
    message = "Write checkpoint(..., use_reentrant=False)"
    assert_refused(lambda: learned(sine_episodes()), ValueError, message)
    assert_refused(lambda: learned.adapt(sine_episodes().support), ValueError, message)


class Selective(Checkpointed):
    def forward(self, x):
        def contexts():
            return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])

        return self.head(checkpoint(self.hidden, x, use_reentrant=False, context_fn=contexts))


def test_a_selective_checkpoint_is_told_of_a_whole_one():
    learned = learner(Selective(), batching="loop")
    assert_refused(
        lambda: learned(sine_episodes()), ValueError, "Write checkpoint(...) without a context_fn."
    )


def test_forward_mode_through_a_checkpoint_is_told_of_stepwise():
    learned = learner(Checkpointed(), estimator=outer.ForwardMode(), batching="loop")
    assert_refused(lambda: learned(sine_episodes()), ValueError, "Use outer.Stepwise(), say.")
    learned.estimator = outer.Stepwise()
    learned(sine_episodes())


class Leaving(Checkpointed):
    """A model that leaves its features, which a criterion reads."""

    def forward(self, x):
        self.features = torch.tanh(self.body(x))
        return super().forward(x)


class LeavingPlain(Leaving):
    def forward(self, x):
        self.features = torch.tanh(self.body(x))
        return self.head(self.hidden(x))


def test_a_criterion_reads_what_the_copy_has_left():
    def estimate(model):
        def criterion(output, y):
            return F.mse_loss(output, y) + model.features.square().mean()

        learned = outer.MAML(model, criterion, inner.SGD(0.1), num_steps=2, batching="loop")
        return learned.estimate(sine_episodes(), torch.arange(3))

    exact, ours = estimate(LeavingPlain()), estimate(Leaving())
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


def test_a_learner_that_calls_copies_can_be_copied():
    learned = learner(Checkpointed(), batching="loop")
    expected = learned.estimate(sine_episodes(), torch.arange(3))
    for other in (copy.deepcopy(learned), pickle.loads(pickle.dumps(learned))):
        assert (
            relative_difference(
                other.estimate(sine_episodes(), torch.arange(3)).gradient, expected.gradient
            )
            < 1e-12
        )


class Switched(Plain):
    """A model that begins to compute again when a flag is set, as `gradient_checkpointing_enable`
    does."""

    checkpointing = False

    def forward(self, x):
        return Checkpointed.forward(self, x) if self.checkpointing else super().forward(x)


def test_a_flag_that_is_set_later_is_noticed():
    model = Switched()
    learned = learner(model, batching="loop")
    exact = learned.estimate(sine_episodes(), torch.arange(3))
    model.checkpointing = True
    assert (
        relative_difference(
            learned.estimate(sine_episodes(), torch.arange(3)).gradient, exact.gradient
        )
        < 1e-12
    )


class Recomputing(torch.autograd.Function):
    """The head, whose backward pass looks at the module again."""

    @staticmethod
    def forward(ctx, h, weight, module):
        ctx.module = module
        ctx.save_for_backward(h)
        return h @ weight.mT

    @staticmethod
    def backward(ctx, bar):
        (h,) = ctx.saved_tensors
        return bar @ ctx.module.head.weight, bar.mT @ h, None


class OfACustomFunction(Net):
    def forward(self, x):
        return Recomputing.apply(torch.tanh(self.body(x)), self.head.weight, self) + self.head.bias


def test_a_function_that_looks_at_its_module_again_is_exact():
    exact, ours = (
        learner(kind(), batching="loop").estimate(sine_episodes(), torch.arange(3))
        for kind in (Net, OfACustomFunction)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_cached_parametrizations_are_computed_anew(batching):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(1, 4), parametrizations.orthogonal(nn.Linear(4, 4)), nn.Linear(4, 1)
        ).double()

    exact = learner(model(), batching=batching).estimate(sine_episodes(), torch.arange(3))
    cached = learner(model(), batching=batching)
    with parametrize.cached():
        before = cached.model[1].weight.clone()
        ours = cached.estimate(sine_episodes(), torch.arange(3))
        assert torch.equal(cached.model[1].weight, before)
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12
    assert relative_difference(ours.loss, exact.loss) < 1e-12


class Tabled(nn.Module):
    """A table of tokens between bounds that PyTorch writes into it, or that are applied to what is
    looked up."""

    def __init__(self, max_norm, bound=None):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.bound = (
            nn.Embedding(5, 3, max_norm=max_norm).double(),
            nn.Linear(3, 1).double(),
            bound,
        )

    def forward(self, x):
        h = self.table(x)
        if self.bound:
            h = h * (self.bound / h.norm(dim=-1, keepdim=True)).clamp(max=1)
        return self.head(h)


class Clamped(Net):
    def forward(self, x):
        self.head.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


def of_tokens():
    batch = Batch(torch.arange(10).reshape(2, 5) % 5, torch.randn(2, 5, 1).double())
    return Episode(batch, batch)


def test_a_model_that_writes_its_parameters_is_refused_and_they_are_as_before():
    cases = [
        (Tabled(0.5), of_tokens(), "writes into ['model.table.weight']. Leave max_norm out"),
        (
            Clamped(),
            sine_episodes(),
            "leave its parameters as they are; got writes into ['model.head.weight']",
        ),
    ]
    for model, episodes, message in cases:
        before = copy.deepcopy(model.state_dict())
        learned = learner(model)
        for call in (
            lambda learned=learned, episodes=episodes: learned(episodes),
            lambda learned=learned, episodes=episodes: learned.adapt(episodes.support),
            lambda learned=learned, episodes=episodes: learned.estimate(episodes),
        ):
            assert_refused(call, ValueError, message)
            assert all(
                torch.equal(value, before[name]) for name, value in model.state_dict().items()
            )
    bounded = learner(Tabled(None, bound=0.5))
    bounded(of_tokens()).backward()
    reference = Tabled(0.5)
    torch.testing.assert_close(
        Tabled(None, bound=0.5)(torch.arange(5)), reference(torch.arange(5)), rtol=1e-6, atol=1e-6
    )


def own_losses(model, call):
    def support_loss(params, shared, episode, step):
        return F.mse_loss(call(model, params, (episode.support.x,)), episode.support.y)

    def query_loss(params, shared, episode):
        return F.mse_loss(call(model, params, (episode.query.x,)), episode.query.y)

    return {"criterion": None, "support_loss": support_loss, "query_loss": query_loss}


def with_own_losses(model, call, **options):
    losses = own_losses(model, call)
    return outer.MetaLearner(
        model, rule=inner.SGD(0.1), num_steps=2, batching="loop", **losses, **options
    )


def test_losses_of_ones_own_are_asked_too():
    exact = with_own_losses(Plain(), torch.func.functional_call).estimate(
        sine_episodes(), torch.arange(3)
    )
    wrong = with_own_losses(Checkpointed(), torch.func.functional_call)
    message = (
        "['model.body.weight', 'model.body.bias', 'model.head.weight']. Take them from params and "
        "shared"
    )
    assert_refused(lambda: wrong(sine_episodes()), ValueError, message)
    ours = with_own_losses(Checkpointed(), functional.call_copy).estimate(
        sine_episodes(), torch.arange(3)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


PURE = {
    "an orthogonal layer": lambda: nn.Sequential(
        nn.Linear(1, 4), parametrizations.orthogonal(nn.Linear(4, 1))
    ),
    "weight normalisation": lambda: nn.Sequential(
        nn.Linear(1, 4), nn.Tanh(), parametrizations.weight_norm(nn.Linear(4, 1))
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
    "batch statistics": lambda: models.use_batch_statistics(
        nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)), "support"
    ),
    "a start of zeros": lambda: _zeros(models.mlp(1, [4], 1)),
}


def _zeros(model):
    for param in model.parameters():
        nn.init.zeros_(param)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("build", PURE.values(), ids=PURE)
def test_a_pure_model_passes(build, dtype):
    torch.manual_seed(0)
    if dtype == torch.bfloat16 and build is PURE["an orthogonal layer"]:
        pytest.skip("PyTorch has no bfloat16 for it")
    learned = outer.MAML(build().to(dtype), F.mse_loss, inner.SGD(0.01), num_steps=1)
    learned.estimate(sine_episodes(1, dtype=dtype))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight, self.head = self.first.weight, nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.second(torch.tanh(self.first(x.expand(-1, 4)))))


@pytest.mark.parametrize("support_batches", [5, functional.SampledBatches(2)], ids=str)
@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.Stepwise(), outer.ParameterDifference()], ids=str
)
def test_batches_of_the_support_set_are_the_same_in_both_ways(support_batches, estimator):
    options = {"support_batches": support_batches, "estimator": estimator, "batching": "loop"}
    exact, ours = (
        learner(kind(), **options).estimate(sine_episodes(), torch.arange(3))
        for kind in (Plain, Checkpointed)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


def test_tied_weights_pass():
    learner(Tied().double())(sine_episodes())


def test_a_recurrent_model_passes_in_a_loop():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.rnn(x[:, None])[0][:, 0])

    learner(Recurrent().double(), batching="loop")(sine_episodes())


def test_numbers_that_are_not_finite_are_no_reason_to_refuse():
    model = models.mlp(1, [4], 1).double()
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    estimate = learner(model).estimate(sine_episodes())
    assert not estimate.diagnostics["finite"].any()


def test_the_global_generators_are_left_as_they_are():
    learned = learner(PURE["dropout"]().double())
    keys = torch.arange(3)
    learned.estimate(sine_episodes(), keys)
    torch.manual_seed(7)
    expected = learner(PURE["dropout"]().double(), check_model=False)
    expected.load_state_dict(learned.state_dict())
    torch.manual_seed(7)
    theirs = expected.estimate(sine_episodes(), keys)
    torch.manual_seed(7)
    fresh = learner(PURE["dropout"]().double())
    fresh.load_state_dict(learned.state_dict())
    torch.manual_seed(7)
    assert relative_difference(fresh.estimate(sine_episodes(), keys).gradient, theirs.gradient) == 0
    assert task(sine_episodes()).support.x.shape == (5, 1)


class Sometimes(Net):
    """A model that checkpoints large inputs alone, by a number that is no flag."""

    limit = 8

    def prepare(self):
        self.segments = 1

    def hidden(self, x):
        return torch.tanh(self.head.weight * self.body(x))

    def forward(self, x):
        again = self.segments and len(x) > self.limit
        return self.head(
            checkpoint(self.hidden, x, use_reentrant=False) if again else self.hidden(x)
        )


@pytest.mark.filterwarnings("ignore:Implicit.* has residual")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_checkpoint_that_begins_later_is_noticed(estimator):
    large = sine_episodes(k_shot=10, num_query=10)
    learned = learner(Sometimes(), estimator=estimator, batching="loop")
    learned.estimate(sine_episodes(k_shot=5, num_query=5))
    exact = learner(Plain(), estimator=estimator, batching="loop").estimate(large, torch.arange(3))
    assert (
        relative_difference(learned.estimate(large, torch.arange(3)).gradient, exact.gradient)
        < 1e-12
    )


def test_a_checkpoint_that_begins_later_is_noticed_in_adaptation():
    large = sine_episodes(k_shot=10, num_query=10)
    exact, ours = (learner(kind(), batching="loop") for kind in (Plain, Sometimes))
    ours.adapt(sine_episodes(k_shot=5).support)
    assert (
        relative_difference(ours.adapt(large.support).params, exact.adapt(large.support).params)
        < 1e-12
    )
    ours = learner(Sometimes(), batching="loop")
    with torch.no_grad():
        ours(sine_episodes(k_shot=5, num_query=5))
        torch.testing.assert_close(ours(large), exact(large))
    message = "be called task by task; got vmap"
    traced = learner(Sometimes())
    traced(sine_episodes(k_shot=5, num_query=5))
    assert_refused(lambda: traced(large), ValueError, message)


def test_hooks_of_the_users_own_around_a_call_are_left_alone():
    exact = learner(Plain()).estimate(sine_episodes(), torch.arange(3))
    learned = learner(Plain())
    with torch.autograd.graph.save_on_cpu():
        ours = learned.estimate(sine_episodes(), torch.arange(3))
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


@pytest.mark.parametrize(
    "options", [{"fast": "head"}, {"fast": "body"}, {"learn_init": False}], ids=str
)
def test_checkpoints_of_parts_that_adapt(options):
    exact, ours = (
        learner(kind(), batching="loop", **options).estimate(sine_episodes(), torch.arange(3))
        for kind in (Plain, Checkpointed)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


class CheckpointedLoss(nn.Module):
    """A criterion with a parameter that is computed again."""

    def __init__(self, again):
        super().__init__()
        self.scale, self.again = nn.Parameter(torch.ones((), dtype=torch.float64)), again

    def loss(self, output, y):
        return (torch.tanh(self.scale * (output - y)) ** 2).mean()

    def forward(self, output, y):
        return (
            checkpoint(self.loss, output, y, use_reentrant=False)
            if self.again
            else self.loss(output, y)
        )


def test_a_checkpointed_criterion_is_exact():
    exact, ours = (
        outer.MAML(
            Net(), CheckpointedLoss(again), inner.SGD(0.1), num_steps=2, batching="loop"
        ).estimate(sine_episodes(), torch.arange(3))
        for again in (False, True)
    )
    assert relative_difference(ours.gradient, exact.gradient) < 1e-12


def test_a_traced_graph_passes():
    model = torch.fx.symbolic_trace(
        nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    ).double()
    learner(model)(sine_episodes())


class Sparse(Net):
    """A network on a graph, whose adjacency is a sparse buffer."""

    def prepare(self):
        self.register_buffer("adjacency", torch.eye(6).double().to_sparse())

    def weight(self):
        return torch.sparse.mm(self.adjacency, self.head.weight.mT).mT


def test_sparse_buffers_pass():
    learner(Sparse(), batching="loop")(sine_episodes())


class Undefined(Net):
    """A model that is not defined beyond parameters near its own."""

    def prepare(self):
        self.factor = nn.Parameter(torch.eye(3).double() + 0.999 * (1 - torch.eye(3).double()))

    def weight(self):
        return self.head.weight * torch.linalg.cholesky(self.factor).diagonal().sum()


def test_a_comparison_where_the_model_is_not_defined_says_nothing():
    outer.MAML(Undefined(), F.mse_loss, inner.SGD(1e-9), num_steps=1)(sine_episodes())
