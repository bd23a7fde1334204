"""Recurrent models and attention: what works has the gradient of a loop by hand, what does not says
what does."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from metalearn import inner, models, outer
from metalearn.types import Batch, Episode
from tests.cases import relative_difference, sine_episodes, sine_learner


class OfSequences(nn.Module):
    """A layer that maps sequences to sequences, between two linear ones."""

    def __init__(self, layer):
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(1, 4), layer, nn.Linear(4, 1)

    def forward(self, x):
        tokens = self.layer(self.embed(x[..., None]))
        return self.head((tokens[0] if isinstance(tokens, tuple) else tokens).mean(1))


class SelfAttention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


class MultiheadSelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)


RECURRENT = {
    kind.__name__: lambda kind=kind: kind(4, 4, batch_first=True)
    for kind in (nn.RNN, nn.LSTM, nn.GRU)
}
ATTENTION = {
    "scaled_dot_product_attention": SelfAttention,
    "MultiheadAttention": lambda: MultiheadSelfAttention(4, 2, batch_first=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(
        4, 2, 4, dropout=0.0, batch_first=True
    ),
}


def sequences():
    x, y = torch.randn(2, 3, 4, 5, dtype=torch.float64)  # 3 tasks of 4 sequences of length 5
    x, y = x.split(2, dim=1), y.mean(-1, keepdim=True).split(2, dim=1)
    return Episode(Batch(x[0], y[0]), Batch(x[1], y[1]))


def maml(layer, **options):
    return outer.MAML(
        OfSequences(layer).double(), F.mse_loss, inner.SGD(0.1), **{"num_steps": 2, **options}
    )


def gradient_by_hand(model, episodes):
    start, total = dict(model.named_parameters()), 0.0
    for x, y, query_x, query_y in zip(*episodes.support[:2], *episodes.query[:2], strict=True):
        params = start
        for _ in range(2):
            loss = F.mse_loss(functional_call(model, params, (x,)), y)
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {
                name: param - 0.1 * g
                for (name, param), g in zip(params.items(), grads, strict=True)
            }
        total = total + F.mse_loss(functional_call(model, params, (query_x,)), query_y)
    return dict(
        zip(
            start,
            torch.autograd.grad(total / len(episodes.support.x), list(start.values())),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.Stepwise()], ids=["unrolled", "stepwise"]
)
@pytest.mark.parametrize(
    ("layer", "batching"),
    [(name, "loop") for name in RECURRENT]
    + [(name, batching) for name in ATTENTION for batching in ("vmap", "loop")],
)
def test_equals_a_loop_by_hand(layer, batching, estimator):
    learner, episodes = (
        maml({**RECURRENT, **ATTENTION}[layer](), batching=batching, estimator=estimator),
        sequences(),
    )
    with sdpa_kernel(SDPBackend.MATH):
        expected = gradient_by_hand(learner.model, episodes)
    assert relative_difference(learner.estimate(episodes).gradient.init, expected) < 1e-10


class UnderTwoNames(nn.Module):
    """Layers that a list names too, and one of them that comes twice."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 1)
        self.layers = nn.ModuleList([self.first, nn.PReLU(), self.first, self.last])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(
    "options", [{}, {"batching": "loop"}, {"compile": {"backend": "eager"}}], ids=str
)
def test_modules_under_two_names(options):
    model, episodes = UnderTwoNames().double(), sequences()
    before = {name: (param, param.clone()) for name, param in model.named_parameters()}
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=2, **options)
    expected = gradient_by_hand(copy.deepcopy(model), episodes)
    for _ in range(2):
        assert relative_difference(learner.estimate(episodes).gradient.init, expected) < 1e-10
    learner.adapt(episodes.support)(episodes.query.x)
    for name, param in model.named_parameters():
        assert param is before[name][0]
        assert torch.equal(param, before[name][1])


class OfTokens(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4, **options), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)).mean(1))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"scale_grad_by_freq": True}], ids=str)
@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.Stepwise()], ids=["unrolled", "stepwise"]
)
def test_tables_of_tasks_are_their_own(options, estimator):
    x, y = torch.randint(0, 6, (3, 4, 5)), torch.randn(3, 4, 1, dtype=torch.float64)
    x[..., 0] = 0
    episodes, model = Episode(Batch(x, y), Batch(x.flip(1), y)), OfTokens(**options).double()
    learners = [
        outer.MAML(
            model, F.mse_loss, inner.SGD(0.5), num_steps=2, estimator=estimator, batching=batching
        )
        for batching in ("vmap", "loop")
    ]
    one, other = (learner.estimate(episodes, torch.arange(3)) for learner in learners)
    assert relative_difference(one.gradient, other.gradient) < 1e-10
    one, other = (learner.adapt(episodes.support).params for learner in learners)
    assert relative_difference(one, other) < 1e-10


@pytest.mark.parametrize("layer", RECURRENT)
def test_recurrent_models_under_vmap_are_told_of_the_loop(layer):
    with pytest.raises(RuntimeError, match="Batching rule not implemented") as raised:
        maml(RECURRENT[layer]())(sequences())
    assert 'batching="loop"' in raised.value.__notes__[0]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_attention_in_a_loss_of_the_users_needs_the_kernel_with_second_derivatives(batching):
    """The learner can call its own model by that kernel, and no loss that it does not know."""
    model = OfSequences(SelfAttention()).double()

    def support_loss(params, shared, episode, step):
        output = functional_call(model, params, (episode.support.x,))
        return F.mse_loss(output, episode.support.y)

    options = {"num_steps": 2, "batching": batching, "support_loss": support_loss}
    with pytest.raises(ValueError, match=r"sdpa_kernel\(SDPBackend.MATH\)"):
        outer.MAML(model, F.mse_loss, inner.SGD(0.1), **options)(sequences())
    assert maml(SelfAttention(), estimator=outer.Unrolled(order=1), batching="loop")(
        sequences()
    ).isfinite()


class LooksAtItsMask(OfSequences):
    """A model that leaves its mask out where all of it is true, as Hugging Face's do."""

    def forward(self, x, mask):
        if not torch.compiler.is_compiling() and mask.all():
            return super().forward(x)
        return super().forward(x * mask[:, None])


@pytest.mark.parametrize("how", ["learner", "replicas", "compiled", "adapted", "not adapted"])
def test_models_that_look_at_values_unless_they_are_traced(how):
    episodes = sequences()
    mask = torch.ones(episodes.support.x.shape[:2], dtype=torch.bool)
    mask[1, 2:] = False
    x = {"x": episodes.support.x, "mask": mask}
    episodes = Episode(Batch(x, episodes.support.y), Batch(x, episodes.support.y))
    model = LooksAtItsMask(SelfAttention()).double()
    loop, ours = (
        outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=2, batching=batching)
        for batching in ("loop", "vmap")
    )
    expected = loop.estimate(episodes).gradient.init
    if how == "compiled":
        ours.set_batching(compile={"backend": "eager"})
    if how.endswith("adapted"):
        num_steps = 2 if how == "adapted" else 0
        theirs = loop.adapt(episodes.support, num_steps)
        adapted = ours.adapt(episodes.support, num_steps)
        assert relative_difference(adapted.params, theirs.params) < 1e-10
        torch.testing.assert_close(adapted(episodes.query.x), theirs(episodes.query.x))
    elif how == "replicas":
        gradient = outer.Replicas([ours]).estimate(episodes).gradient.init
        assert relative_difference({n: g[0] for n, g in gradient.items()}, expected) < 1e-10
    else:
        assert relative_difference(ours.estimate(episodes).gradient.init, expected) < 1e-10
    assert not torch.compiler.is_compiling()


class Checkpointed(OfSequences):
    """A model whose layer is computed again in the backward pass."""

    def forward(self, x):
        layer = self.layer
        tokens = checkpoint(layer, self.embed(x[..., None]), use_reentrant=False)
        return self.head(tokens.mean(1))


@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.Stepwise()], ids=["unrolled", "stepwise"]
)
def test_attention_in_a_checkpoint(estimator):
    episodes, model = sequences(), Checkpointed(SelfAttention()).double()
    options = {"num_steps": 2, "batching": "loop", "estimator": estimator}
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.1), **options)
    plain = OfSequences(SelfAttention()).double()
    plain.load_state_dict(model.state_dict())
    with sdpa_kernel(SDPBackend.MATH):
        expected = gradient_by_hand(plain, episodes)
    assert relative_difference(learner.estimate(episodes).gradient.init, expected) < 1e-10


def test_recurrent_models_on_a_gpu_need_the_kernels_with_second_derivatives(monkeypatch):
    def refuse(*_):
        raise NotImplementedError("the derivative for '_cudnn_rnn_backward' is not implemented.")

    monkeypatch.setattr(outer.Unrolled, "__call__", refuse)
    with pytest.raises(ValueError, match=r"cudnn.flags\(enabled=False\)"):
        maml(RECURRENT["GRU"](), batching="loop")(sequences())


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("layer", ["MultiheadAttention", "TransformerEncoderLayer"])
def test_attention_in_evaluation_mode_adapts(layer, batching):
    learner, episodes = maml(ATTENTION[layer](), batching=batching).eval(), sequences()
    expected = learner(episodes).detach()
    with torch.no_grad():
        torch.testing.assert_close(learner(episodes), expected)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("part", ["the model", "the model in place", "a layer"])
def test_a_compiled_model_is_refused(part):
    model = models.mlp(1, [4], 1)
    if part == "the model":
        model = torch.compile(model, backend="eager")
    else:
        (model if "place" in part else model[0]).compile(backend="eager")
    with pytest.raises(ValueError, match=r"MAML\(..., compile=True\)"):
        outer.MAML(model, F.mse_loss, inner.SGD(0.1), num_steps=1)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_adapts_under_inference_mode(batching):
    learner = sine_learner(batching=batching)
    with torch.no_grad():
        loss, adapted = learner(sine_episodes()), learner.adapt(sine_episodes().support)
    with torch.inference_mode():
        assert torch.equal(learner(sine_episodes()), loss)
        again = learner.adapt(sine_episodes().support)
        assert torch.equal(again.loss(sine_episodes().query).mean(), loss)
    assert relative_difference(again.params, adapted.params) == 0
