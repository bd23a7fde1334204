"""Models that return more than tensors: what all tasks agree on is passed on, what they do not is
named."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree

from metalearn import evaluate, functional, models
from metalearn._tasks import take
from metalearn.types import Batch, Episode
from tests.cases import relative_difference, sine_episodes
from tests.outer.cases import learner

BATCHINGS = [{}, {"chunk_size": 2}, {"chunk_size": 1}, {"batching": "loop"}]
Named = namedtuple("Named", "logits extra")


class ModelOutput(OrderedDict):
    """An ordered dict with attributes, as Hugging Face's models return it: parts that are None are
    left out."""

    def __init__(self, logits, loss=None, name="sine"):
        super().__init__(
            {k: v for k, v in (("logits", logits), ("loss", loss), ("name", name)) if v is not None}
        )
        self.logits = logits


_pytree.register_pytree_node(
    ModelOutput,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: ModelOutput(**dict(zip(names, values, strict=True))),
)


@dataclass
class Opaque:
    logits: torch.Tensor


class Returning(nn.Module):
    """A linear layer that returns what a function makes of its output."""

    def __init__(self, returned):
        super().__init__()
        self.linear, self.returned = nn.Linear(1, 1).double(), returned

    def forward(self, x):
        return self.returned(self.linear(x))


def first(output):
    return next(leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor))


def of_first(output, y):
    return F.mse_loss(first(output), y)


def returning(returned, **options):
    return learner(Returning(returned), of_first, **options)


def assert_same(one, other):
    leaves, others = _pytree.tree_leaves(one), _pytree.tree_leaves(other)
    for leaf, expected in zip(leaves, others, strict=True):
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(leaf, expected)
        else:
            assert repr(leaf) == repr(expected)


RETURNED = {
    "a tuple with None": lambda h: (h, None),
    "a list with a string": lambda h: [h, "sine", 3],
    "a dict": lambda h: {
        "logits": h,
        "n": 3,
        "rate": float("nan"),
        "nested": {"of": None, "flag": True},
    },
    "an ordered dict": lambda h: OrderedDict(logits=h, attentions=None),
    "a named tuple": lambda h: Named(h, None),
    "a dtype": lambda h: {"logits": h, "dtype": h.dtype},
    "a model output": ModelOutput,
    "a result of PyTorch": lambda h: h.max(-1, keepdim=True),
    "a tensor of no task": lambda h: (h, torch.arange(3), None),
}


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
@pytest.mark.parametrize("kind", RETURNED)
def test_what_all_tasks_agree_on_is_passed_on(kind, options):
    made, episodes = returning(RETURNED[kind], **options), sine_episodes()
    adapted = made.adapt(episodes.support)
    outputs = adapted(episodes.query.x)
    for index in range(3):
        expected = adapted[index](episodes.query.x[index])
        assert type(expected) is type(outputs)
        assert_same(take(outputs, index), expected)
    torch.testing.assert_close(
        adapted.loss_of(outputs, episodes.query), adapted.loss(episodes.query)
    )
    measured = evaluate(made, [episodes], num_tasks=3, metrics={"mse": of_first})
    torch.testing.assert_close(measured["mse"].values, measured["loss"].values)


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
def test_attention_without_weights(options):
    class Attention(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x, need_weights=False)

    def criterion(output, y):
        return F.mse_loss(output[0], y)

    made = learner(Attention(4, 2, batch_first=True).double(), criterion, **options)
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        adapted = made.adapt(Batch(x, x))
        output, weights = adapted(x)
        assert weights is None
        torch.testing.assert_close(output[1], adapted[1](x[1])[0])
        losses = evaluate(
            made,
            [type(sine_episodes())(Batch(x, x), Batch(x, x))],
            num_tasks=3,
            metrics={"m": criterion},
        )
    torch.testing.assert_close(losses["m"].values, losses["loss"].values)


def second_half(output):
    return output["logits"] * 2


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (ModelOutput, "logits"),
        (lambda h: Named(h, None), "logits"),
        (Opaque, "logits"),
        (lambda h: {"logits": h / 2}, second_half),
    ],
    ids=["a model output", "a named tuple", "a dataclass", "a function"],
)
def test_what_of_the_output_is_seen(returned, output, options):
    episodes = sine_episodes()
    plain = learner(Returning(lambda h: h), F.mse_loss, **options)
    made = learner(Returning(returned), F.mse_loss, output=output, **options)
    made.load_state_dict(plain.state_dict())
    one, other = (each.estimate(episodes, torch.arange(3)) for each in (made, plain))
    assert relative_difference(one.gradient, other.gradient) < 1e-12
    adapted, expected = (each.adapt(episodes.support) for each in (made, plain))
    torch.testing.assert_close(adapted(episodes.query.x), expected(episodes.query.x))
    assert_same(adapted[1](episodes.query.x[1]), returned(expected[1](episodes.query.x[1])))
    metrics = {"mse": F.mse_loss}
    measured = evaluate(made, [episodes], num_tasks=3, metrics=metrics)
    torch.testing.assert_close(measured["mse"].values, measured["loss"].values)


class WithOwnLoss(nn.Module):
    """Returns a loss where labels are among its inputs, as Hugging Face's models do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1).double()

    def forward(self, x, labels=None):
        output = self.linear(x)
        return ModelOutput(output, None if labels is None else F.mse_loss(output, labels))


def test_the_models_own_loss():
    episodes = sine_episodes()
    plain = learner(Returning(lambda h: h), F.mse_loss)
    made = learner(WithOwnLoss(), functional.own_loss)
    made.load_state_dict(plain.state_dict())
    labelled = Episode(*(Batch({"x": b.x, "labels": b.y}) for b in episodes))
    one, other = made.estimate(labelled), plain.estimate(episodes)
    assert relative_difference(one.gradient, other.gradient) < 1e-12
    unlabelled = Episode(*(Batch({"x": b.x}, b.y) for b in episodes))
    with pytest.raises(ValueError, match="must have 'loss'; got .*logits.* Pass labels too"):
        made(unlabelled)


def test_a_field_that_is_not_there():
    with pytest.raises(ValueError, match="outputs must have 'scores'; got .*Name another field"):
        learner(Returning(ModelOutput), F.mse_loss, output="scores")(sine_episodes())
    with pytest.raises(TypeError, match="output must be a field's name or a function; got 3"):
        learner(Returning(ModelOutput), F.mse_loss, output=3)


class PerTask(nn.Module):
    """Returns what a function makes of the output and of a number that is the task's own, read from
    its inputs."""

    def __init__(self, returned):
        super().__init__()
        self.linear, self.returned = nn.Linear(1, 1).double(), returned

    def forward(self, x):
        return self.returned(self.linear(x), int(x[0, 0]))


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (
            lambda h, n: {"logits": h, "n": n},
            ValueError,
            "output 'n' must be the same for all tasks; got 0 and 1",
        ),
        (
            lambda h, n: (h, None if n else "a"),
            ValueError,
            "output '1' must be the same for all tasks; got 'a'",
        ),
        (
            lambda h, n: (h, h if n else None),
            ValueError,
            "output '1' must be the same for all tasks; got None",
        ),
        (
            lambda h, n: (h, h[: 1 + n]),
            ValueError,
            "output '1' must have one shape for all tasks; got [(1, 1, 1), (",
        ),
        (
            lambda h, n: [h] * (1 + n),
            ValueError,
            "outputs must be of one structure for all tasks; got [Tensor (1, 5",
        ),
        (
            lambda h, n: {"logits": h, n: h},
            ValueError,
            "outputs must be of one structure for all tasks; got {'logits'",
        ),
    ],
)
@pytest.mark.parametrize("chunk_size", [None, 1])
def test_what_tasks_disagree_on_is_named(returned, error, message, chunk_size):
    x = torch.arange(3.0, dtype=torch.float64)[:, None, None].expand(3, 5, 1).contiguous()
    options = {"batching": "loop"} if chunk_size is None else {"chunk_size": chunk_size}
    adapted = learner(PerTask(returned), of_first, **options).adapt(Batch(x, x))
    with pytest.raises(error) as raised:
        adapted(x)
    assert message in str(raised.value)


def test_of_unequal_chunks_the_right_output_is_named():
    x = (
        torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
        .expand(3, 5, 1)
        .contiguous()
    )
    made = learner(PerTask(lambda h, n: {"logits": h, "n": n}), of_first, chunk_size=1)
    adapted = replace(made.adapt(Batch(x, x)), batching="loop", chunk_size=2)
    with pytest.raises(ValueError, match="output 'n' must be the same for all tasks; got 0 and 1"):
        adapted(x)


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
def test_what_may_hold_tensors_is_refused_by_its_name(options):
    made = learner(Returning(lambda h: {"logits": h, "cache": Opaque(h)}), of_first, **options)
    adapted = made.adapt(sine_episodes().support)
    with pytest.raises(TypeError) as raised:
        adapted(sine_episodes().query.x)
    assert str(raised.value) == (
        "output 'cache' must be a tensor, a number, a string or None; got Opaque."
        " Return a dict or a tuple of tensors in its place, or leave it out."
    )


@pytest.mark.parametrize("options", BATCHINGS, ids=str)
def test_normalised_by_the_support_set(options):
    class Normalised(nn.Module):
        def __init__(self, extra):
            super().__init__()
            self.layers, self.extra = models.mlp(1, [4], 1).double(), extra
            self.norm = models.use_batch_statistics(nn.BatchNorm1d(1).double(), "support")

        def forward(self, x):
            h = self.norm(self.layers(x))
            return {"logits": h, "loss": None, "extra": self.extra(h)}

    episodes = sine_episodes()
    made = learner(Normalised(lambda h: "name"), of_first, **options)
    outputs = made.adapt(episodes.support)(episodes.query.x)
    assert outputs["logits"].shape == episodes.query.x.shape
    assert (outputs["loss"], outputs["extra"]) == (None, "name")
    with pytest.raises(ValueError, match="must begin with the axis of examples; got tensor"):
        learner(Normalised(torch.mean), of_first, **options)(episodes)


def test_ensembles_pass_on_what_their_members_agree_on():
    episodes = sine_episodes()
    measured = evaluate(
        [returning(RETURNED["a dict"]) for _ in range(2)],
        [episodes],
        num_tasks=3,
        metrics={"mse": of_first},
    )
    torch.testing.assert_close(measured["mse"].values, measured["loss"].values)
