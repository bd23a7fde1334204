"""What a learner refuses of what it is called on: the error's type and a part of its message, the
fix included."""

import random
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import evaluate, functional, inner, models, outer
from metalearn.types import Batch, Carry, Episode, Estimate, Meta
from tests.cases import sine_episodes, sine_learner
from tests.outer.cases import SGD, assert_refused, learner


class LearnedLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, output, target):
        return self.scale * F.mse_loss(output, target)


def changed(**fields):
    """Sine episodes with tensors replaced, such as `query_y`."""
    parts = {
        f"{a}_{b}": getattr(getattr(sine_episodes(), a), b)
        for a in ("support", "query")
        for b in "xy"
    }
    parts |= fields
    return Episode(
        Batch(parts["support_x"], parts["support_y"]), Batch(parts["query_x"], parts["query_y"])
    )


X = torch.zeros(3, 5, 1, dtype=torch.float64)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()

    def forward(self, x):
        return self.used(x)


def classify(label, criterion=F.cross_entropy, weight=()):
    y = torch.full((2, 4), label)
    batch = Batch(torch.rand(2, 4, 3), y, weight)
    return learner(nn.Linear(3, 5), criterion)(Episode(batch, batch))


class Drawing(nn.Module):
    """A model whose output is scaled by a random number of some library."""

    def __init__(self, draw):
        super().__init__()
        self.layer, self.draw = nn.Linear(1, 1).double(), draw

    def forward(self, x):
        return self.layer(x) * self.draw()


def dropout(estimator):
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(), nn.Linear(8, 1)).double()
    return learner(model, estimator=estimator)(sine_episodes())


@dataclass(frozen=True)
class Faulty(inner.UpdateRule):
    """A rule of one's own that returns something else."""

    kind: str

    def update(self, meta, grads, state, params, loss, step):
        updates = {name: -grad for name, grad in grads.items()}
        return {
            "no state": updates,
            "no biases": (
                {name: update for name, update in updates.items() if "bias" not in name},
                state,
            ),
            "means": ({name: update.mean() for name, update in updates.items()}, state),
            "another state": (updates, {"new": loss}),
            "a number": (updates, 3),
        }[self.kind]


@dataclass(frozen=True)
class Holding(inner.UpdateRule):
    """Gradient descent with a rate of its own."""

    rate: torch.Tensor

    def update(self, meta, grads, state, params, loss, step):
        return {name: -self.rate * grad for name, grad in grads.items()}, state


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(1, 1).double(), [nn.Linear(1, 1).double()]

    def forward(self, x):
        return self.head(self.body[0](x))


SCALE = nn.Parameter(torch.ones((), dtype=torch.float64))
SCALE_SQUARED = SCALE**2


def hooked():
    model = models.mlp(1, [4], 1).double()
    model[0].register_full_backward_hook(lambda *_: None)
    return learner(model)


@dataclass(frozen=True)
class Own(outer.MetaGradient):
    kind: str
    reaches = frozenset({"init"})

    def __call__(self, problem, meta, episode, key, carry):
        loss = problem.query_loss(meta.init, meta.shared, episode)
        if self.kind == "none":
            return Estimate(Meta(dict.fromkeys(meta.init), {}, {}), loss, carry, {})
        first = dict(list(meta.init.items())[:1])
        return loss if self.kind == "loss" else Estimate(Meta(first, {}, {}), loss, carry, {})


def of_table(params, shared, episode, *_):
    return params["weight"].square().sum()


def decayed():
    model = nn.Linear(1, 1).double()
    return learner(model, lambda output, y: F.mse_loss(output, y) + model.weight.square().sum())(
        changed()
    )


def one_task(criterion):
    batch = Batch(torch.rand(5, 3), torch.arange(5))
    return learner(nn.Linear(3, 5), criterion)(Episode(batch, batch))


AT_FIRST_CALL = {
    "a rule without state": (
        lambda: learner(rule=Faulty("no state"))(sine_episodes()),
        TypeError,
        "return updates, state",
    ),
    "a rule without biases": (
        lambda: learner(rule=Faulty("no biases"))(sine_episodes()),
        ValueError,
        "named and shaped",
    ),
    "a rule of scalars": (
        lambda: learner(rule=Faulty("means"))(sine_episodes()),
        ValueError,
        "named and shaped",
    ),
    "a rule of another state": (
        lambda: learner(rule=Faulty("another state"))(sine_episodes()),
        ValueError,
        "keep its structure",
    ),
    "a truncated estimator for what the rule's state holds": (
        lambda: learner(rule=inner.Masked(SGD), estimator=outer.Unrolled(truncate=1))(
            sine_episodes()
        ),
        ValueError,
        "Use outer.Unrolled(), of order 2 and not truncated.",
    ),
    "a rule whose state holds numbers": (
        lambda: learner(rule=Faulty("a number"))(sine_episodes()),
        TypeError,
        "must be a pytree of tensors; got 3 in it",
    ),
    "a model that writes into its inputs": (
        lambda: learner(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(1, 1).double()))(changed()),
        ValueError,
        (
            "support loss must leave inputs and targets as they are; got a write into them. Write "
            "x = x / 255"
        ),
    ),
    "a criterion that writes into targets, in evaluation": (
        lambda: evaluate(
            learner(criterion=lambda o, y: F.mse_loss(o, y.mul_(2))), [changed()], num_tasks=3
        ),
        ValueError,
        "leave inputs and targets as they are",
    ),
    "hooks of the backward pass": (
        lambda: hooked()(changed()),
        ValueError,
        (
            "modules under vmap must have no hooks of the backward pass; got some. Remove them, "
            "or choose batching='loop'."
        ),
    ),
    "an estimator that returns a loss": (
        lambda: learner(estimator=Own("loss"))(changed()),
        TypeError,
        (
            "must return an Estimate of a Meta; got Tensor. Write Estimate(Meta(init, shared, "
            "rule), loss, carry, {})."
        ),
    ),
    "an estimator without gradients": (
        lambda: learner(estimator=Own("none"))(changed()),
        ValueError,
        "got {'0.weight': None",
    ),
    "a padded table in a loss of one's own": (
        lambda: learner(
            nn.Embedding(4, 1, padding_idx=0), None, support_loss=of_table, query_loss=of_table
        )(changed()),
        ValueError,
        "have no padding_idx and no scale_grad_by_freq; got one that has. Choose batching='loop'.",
    ),
    "an estimator that leaves out a gradient": (
        lambda: learner(estimator=Own("half"))(changed()),
        ValueError,
        "Return torch.zeros_like of what it does not reach.",
    ),
    "a NumPy array": (
        lambda: learner()(changed(support_x=X.numpy())),
        TypeError,
        "Write torch.as_tensor(x).",
    ),
    "None as targets": (
        lambda: learner()(changed(support_y=None)),
        TypeError,
        "Leave it out: Batch(x).",
    ),
    "inputs and targets to adapt": (
        lambda: learner().adapt(X, X),
        TypeError,
        "support must be a Batch; got Tensor. Write learner.adapt(episodes.support).",
    ),
    "a tuple": (lambda: learner()((X, X)), TypeError, "Pass tasks.sample(25)"),
    "an episode of tuples": (
        lambda: learner()(Episode((X, X), (X, X))),
        TypeError,
        "an Episode of two Batches",
    ),
    "an episode of lists": (lambda: learner()(changed(support_x=[1.0])), TypeError, "torch.stack"),
    "fewer query tasks": (
        lambda: learner()(changed(query_x=X[:2], query_y=X[:2])),
        ValueError,
        (
            "agree on a number of tasks of at least 1; got "
            "{'support.x': 3, 'support.y': 3, 'query.x': 2, 'query.y': 2}"
        ),
    ),
    "fewer of one of two inputs": (
        lambda: learner()(changed(query_x={"image": X[:2], "text": X})),
        ValueError,
        (
            "at least 1; got "
            "{'support.x': 3, 'support.y': 3, 'query.x.image': 2, 'query.x.text': 3, 'query.y': 3}"
        ),
    ),
    "no task": (
        lambda: learner()(changed(**dict.fromkeys(changed_names(), X[:0]))),
        ValueError,
        "at least 1",
    ),
    "fewer targets": (
        lambda: learner()(changed(query_y=X[:, :2])),
        ValueError,
        (
            "inputs and targets must agree on tasks and examples; got query.x (3, 4, 1) and "
            "query.y (3, 2, 1)"
        ),
    ),
    "inputs that require grad": (
        lambda: learner()(changed(support_x=X.clone().requires_grad_())),
        ValueError,
        (
            "support.x, whose gradient would be lost. Detach it, or learn it as a model parameter "
            "or in a support_"
        ),
    ),
    "another device": (
        lambda: learner()(sine_episodes().to("meta")),
        ValueError,
        "episodes.to('cpu')",
    ),
    "keys of another length": (
        lambda: learner()(changed(), keys=torch.arange(2)),
        ValueError,
        "draw_keys(3)",
    ),
    "keys of another type": (
        lambda: learner()(changed(), keys=torch.zeros(3)),
        ValueError,
        "int64 of shape (3,)",
    ),
    "support batches that do not divide": (
        lambda: learner(support_batches=3)(changed()),
        ValueError,
        "support_batches must divide the 5 support examples; got 3. Use support_batches=1, say.",
    ),
    "a vector of losses": (
        lambda: learner(criterion=lambda output, y: (output - y) ** 2)(changed()),
        ValueError,
        (
            "support loss must be a scalar; got shape (5, 1). Average it: reduction='mean', or "
            "loss.mean()."
        ),
    ),
    "a number as loss": (
        lambda: learner(criterion=lambda output, y: 0.0)(changed()),
        TypeError,
        "a scalar tensor",
    ),
    "a label too high": (
        lambda: classify(5),
        ValueError,
        "support labels must be below the model's 5 outputs and at least 0; got labels from 5 to 5",
    ),
    "a negative label": (
        lambda: classify(-1, nn.CrossEntropyLoss()),
        ValueError,
        "Give the model n_way outputs.",
    ),
    "a label too high in a later task": (
        lambda: classify_later_task(),
        ValueError,
        "got labels from 0 to 7",
    ),
    "a label too high in adaptation": (
        lambda: learner(nn.Linear(3, 5), F.cross_entropy).adapt(
            Batch(torch.rand(2, 4, 3), torch.full((2, 4), 5))
        ),
        ValueError,
        "support labels must be below the model's 5 outputs",
    ),
    "targets that would broadcast": (
        lambda: learner()(changed(support_y=X[..., 0], query_y=X[:, :4, 0])),
        ValueError,
        (
            "support outputs and targets must have one shape; got (5, 1) and (5,). Give y the "
            "model's shape: y[..., None]"
        ),
    ),
    "weights for a criterion that takes none": (
        lambda: learner()(weighted(changed())),
        TypeError,
        "Write lambda o, y, w: (w * (o - y).square().mean(-1)).sum() / w.sum().",
    ),
    "weights that are no real numbers": (
        lambda: classify(1, weight=torch.ones(2, 4, dtype=torch.complex64)),
        TypeError,
        "support.weight must hold real numbers; got torch.complex64",
    ),
    "weights for a criterion of classes that takes those of classes": (
        lambda: classify(1, weight=torch.ones(2, 4)),
        TypeError,
        "criterion must take a weight for every example",
    ),
    "weights for a criterion of logits that would broadcast": (
        lambda: learner(criterion=F.binary_cross_entropy_with_logits)(weighted(changed())),
        TypeError,
        "(w * F.binary_cross_entropy_with_logits(o, y, reduction='none').mean(-1)).sum() / w.sum()",
    ),
    "weights for a criterion of probabilities that would broadcast": (
        lambda: learner(criterion=F.binary_cross_entropy)(weighted(changed())),
        TypeError,
        "(w * F.binary_cross_entropy(o, y, reduction='none').mean(-1)).sum() / w.sum()",
    ),
    "labels without a task axis": (
        lambda: one_task(F.cross_entropy),
        ValueError,
        (
            "support labels must be [num_tasks, num_examples]; got shape (5,). For one task write "
            "x[None] and y[None]."
        ),
    ),
    "labels without a task axis for our criterion": (
        lambda: one_task(functional.cross_entropy),
        ValueError,
        "got shape (5,). For one task write x[None] and y[None].",
    ),
    "a parameter in a criterion": (
        lambda: learner(criterion=lambda output, y: F.mse_loss(SCALE * output, y))(changed()),
        ValueError,
        (
            "model and criterion must capture no parameters; got one of shape (), which nothing "
            "would learn. Pass an nn"
        ),
    ),
    "a parameter in a criterion that only adapts": (
        lambda: learner(support_criterion=lambda output, y: F.mse_loss(SCALE * output, y)).adapt(
            changed().support
        ),
        ValueError,
        "model and support_criterion must capture no parameters",
    ),
    "a parameter in a support loss": (
        lambda: learner(support_loss=lambda params, *_: SCALE * params["0.weight"].sum())(
            changed()
        ),
        ValueError,
        "support_loss must capture no parameters",
    ),
    "what a parameter has become": (
        lambda: learner(query_loss=lambda params, *_: SCALE_SQUARED * params["0.weight"].sum())(
            changed()
        ),
        ValueError,
        "query_loss must capture no parameters",
    ),
    "a module that a criterion does not own": (
        lambda: learner(criterion=partial(LearnedLoss()))(changed()),
        ValueError,
        "Pass an nn.Module that owns it, which is then learned, or detach it.",
    ),
    "the model's own parameter in a criterion": (
        lambda: decayed(),
        ValueError,
        (
            "got model.weight, whose gradient would be lost. Take it from the arguments of a "
            "support_loss or query_loss"
        ),
    ),
    "a parameter that the model does not own": (
        lambda: learner(Unregistered())(changed()),
        ValueError,
        "model and criterion must capture no parameters; got one of shape (1",
    ),
    "a parameter in a rule": (
        lambda: learner(rule=Holding(SCALE))(changed()),
        ValueError,
        (
            "Holding must hold no parameters but those of init_meta; got one of shape (), which "
            "nothing would learn."
        ),
    ),
    "no support examples": (
        lambda: learner()(changed(support_x=X[:, :0], support_y=X[:, :0])),
        ValueError,
        "support.x must have at least 1 example; got [(3, 0, 1)].",
    ),
    "no query examples": (
        lambda: learner()(changed(query_x=X[:, :0], query_y=X[:, :0])),
        ValueError,
        "query.x must have at least 1 example",
    ),
    "no query set": (
        lambda: learner()(Episode(changed().support, Batch(()))),
        ValueError,
        (
            "query loss is measured on; got none. Pass data.SupportAsQuery(tasks), or "
            "Episode(support, support)."
        ),
    ),
    "no query set for replicas": (
        lambda: outer.Replicas([learner()])(Episode(changed().support, Batch(()))),
        ValueError,
        "Pass data.SupportAsQuery(tasks)",
    ),
    "no support set": (
        lambda: learner()(Episode(Batch(()), changed().query)),
        ValueError,
        "support set must have the examples that the support loss is measured on",
    ),
    "None as query set": (
        lambda: learner()(Episode(changed().support, None)),
        TypeError,
        "episodes must be an Episode of two Batches; got Episode of Batch and NoneType.",
    ),
    "statistics written by hand": (
        lambda: learner(Counting(), batching="loop")(changed()),
        ValueError,
        "model must leave its buffers as they are; got writes into ['model.calls']",
    ),
    "statistics replaced by hand": (
        lambda: learner(Replacing())(changed()),
        ValueError,
        "model must leave its buffers as they are; got writes into ['model.calls']",
    ),
    "a label too high for a partial": (
        lambda: classify(5, partial(F.cross_entropy, label_smoothing=0.1)),
        ValueError,
        "Give the model n_way outputs.",
    ),
    "a label too high for a function of one's own": (
        lambda: classify(5, lambda output, y: F.cross_entropy(output, y)),
        ValueError,
        "support loss must be computable; got IndexError: Target 5 is out of bounds",
    ),
    "labels of another type": (
        lambda: classify(1.0),
        TypeError,
        "support labels must be of int64; got torch.float32. Write y.long().",
    ),
    "a tuple for two inputs": (
        lambda: learner(nn.Bilinear(1, 1, 1).double())(changed(support_x=(X, X), query_x=(X, X))),
        TypeError,
        (
            "make them fit. A tuple is one argument; a dict is passed as keywords: "
            "Batch({'u': u, 'v': v}, y)."
        ),
    ),
    "inputs of another precision": (
        lambda: learner()(sine_episodes(dtype=torch.float32)),
        ValueError,
        (
            "The first task's support tensors are (5, 1) of torch.float32, (5, 1) of "
            "torch.float32, the model's"
        ),
    ),
    "inputs of another size": (
        lambda: learner()(changed(support_x=torch.cat([X, X], -1))),
        ValueError,
        "(5, 2)",
    ),
    "half precision": (
        lambda: learner().half()(changed(**{name: X.half() for name in changed_names()})),
        ValueError,
        "parameters must be of bfloat16 or more bits; got float16. Write learner.float().",
    ),
    "a constant thawed later": (
        lambda: thawed(),
        ValueError,
        "constants of the learner must not require grad",
    ),
    "a parameter without gradient": (
        lambda: learner(Unused())(changed()),
        ValueError,
        (
            "got none for ['model.unused.bias', 'model.unused.weight']. Call "
            ".requires_grad_(False) on them"
        ),
    ),
    "a loss without gradient": (
        lambda: learner(criterion=lambda output, y: y.sum())(changed()),
        ValueError,
        (
            "support loss must have a derivative; got none for any parameter that adapts. Use the "
            "model's output in it"
        ),
    ),
    "a learned loss at order 1": (
        lambda: learner(support_criterion=LearnedLoss(), estimator=outer.Unrolled(order=1))(
            changed()
        ),
        ValueError,
        (
            "got none for ['support_criterion.scale'], which act through the rest of the inner "
            "loop alone."
        ),
    ),
    "dropout under Stepwise of order 1": (
        lambda: dropout(outer.Stepwise(order=1)),
        ValueError,
        "Use estimator=outer.Unrolled(), or switch dropout off with learner.eval().",
    ),
    "Python's random numbers under Stepwise": (
        lambda: learner(Drawing(random.random), estimator=outer.Stepwise())(sine_episodes()),
        ValueError,
        "draws in its forward pass from NumPy or Python. Draw by PyTorch: torch.rand(()), say.",
    ),
    "NumPy's random numbers under Stepwise": (
        lambda: learner(Drawing(np.random.random), estimator=outer.Stepwise())(sine_episodes()),
        ValueError,
        "random draws in its forward pass",
    ),
    "dropout under clipped ForwardMode": (
        lambda: dropout(outer.ClipPerTask(outer.ForwardMode(), 1.0)),
        ValueError,
        "random draws in its forward pass",
    ),
    "adapting backwards": (
        lambda: learner().adapt(changed().support, num_steps=-1),
        ValueError,
        "num_steps must be at least 0; got -1",
    ),
    "adapting to an episode": (
        lambda: learner().adapt(changed()),
        TypeError,
        "learner.adapt(episodes.support)",
    ),
}


def classify_later_task():
    batch = Batch(torch.rand(2, 4, 3), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 7]]))
    return learner(nn.Linear(3, 5), F.cross_entropy)(Episode(batch, batch))


def weighted(episodes):
    return Episode(*(batch._replace(weight=torch.ones_like(batch.x[..., 0])) for batch in episodes))


def thawed():
    model = models.mlp(1, [4], 1).double()
    model[0].requires_grad_(False)
    one = learner(model)
    model[0].requires_grad_(True)
    return one(changed())


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1).double()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.linear(x)


class Replacing(Counting):
    def forward(self, x):
        self.calls = self.calls + 1
        return self.linear(x)


def changed_names():
    return ("support_x", "support_y", "query_x", "query_y")


@pytest.mark.parametrize("name", AT_FIRST_CALL)
def test_at_first_call(name):
    assert_refused(*AT_FIRST_CALL[name])


def test_float16_autocast():
    with torch.autocast("cpu", torch.float16), pytest.raises(ValueError, match="torch.bfloat16"):
        sine_learner().float()(sine_episodes(dtype=torch.float32))


def test_a_forgotten_task_axis_of_numbers_is_warned_of_once():
    one, batch = learner(), Batch(X[0], X[0])
    with pytest.warns(
        UserWarning,
        match=r"5 tasks of one example each. For one task of 5 examples write x\[None\]",
    ):
        one(Episode(batch, batch))
    one(Episode(batch, batch))
    with pytest.warns(UserWarning, match="5 tasks of one example each"):
        one.adapt(batch)
    learner().adapt(Batch(X[:1, 0], X[:1, 0]))


def test_what_requires_grad_and_is_not_captured_passes():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.linear, self.frozen = (
                nn.Linear(1, 1).double(),
                nn.Linear(1, 1).double().requires_grad_(False),
            )
            self.register_buffer("scale", scale)

        def forward(self, x):
            return self.frozen(self.linear(self.scale * x))

    def energy(output, y):
        with torch.enable_grad():
            point = torch.zeros((), requires_grad=True, dtype=torch.float64)
            (slope,) = torch.autograd.grad((3 * point).exp(), point, create_graph=True)
        return F.mse_loss(output, y) * slope

    scaled = Scaled(torch.ones(1, dtype=torch.float64, requires_grad=True))
    learner(scaled, LearnedLoss(), learn_init="linear.bias")(changed())
    learner(criterion=energy).adapt(changed().support, num_steps=0)
    learner(criterion=lambda output, y: F.mse_loss(SCALE.detach() * output, y))(changed())


def test_losses_of_ones_own_need_no_query_set():
    def loss(params, shared, episode, *_):
        return F.mse_loss(episode.support.x @ params["weight"] + params["bias"], episode.support.y)

    options = {"support_loss": loss, "query_loss": loss, "criterion": None}
    learner(nn.Linear(1, 1).double(), **options)(Episode(changed().support, Batch(())))


@pytest.mark.parametrize("ignored", [-100, 255])
def test_ignored_labels_pass(ignored):
    batch = Batch(torch.rand(2, 4, 3), torch.tensor([[0, 1, 2, ignored]] * 2))
    for criterion in (
        partial(F.cross_entropy, ignore_index=ignored),
        nn.CrossEntropyLoss(ignore_index=ignored),
    ):
        assert learner(nn.Linear(3, 3), criterion)(Episode(batch, batch)).isfinite()


class PerStep(nn.Module):
    """A learned support loss with a parameter of its own for every step."""

    def __init__(self, num_steps):
        super().__init__()
        self.predict = lambda params, x: F.linear(x, params["weight"], params["bias"])
        self.scale = nn.ParameterList(
            [nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(num_steps)]
        )

    def forward(self, params, shared, episode, step):
        return self.scale[step] * F.mse_loss(
            self.predict(params, episode.support.x), episode.support.y
        )


def test_a_learned_loss_may_have_a_parameter_for_every_step():
    model = nn.Linear(1, 1).double()
    loss = PerStep(3)
    learner(model, num_steps=3, support_loss=loss)(sine_episodes()).backward()
    assert all(scale.grad.abs() > 0 for scale in loss.scale)


def test_dropout_passes_under_unrolled_and_in_evaluation_mode():
    assert dropout(outer.Unrolled()).isfinite()
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(), nn.Linear(8, 1)).double()
    quiet = learner(model, estimator=outer.ForwardMode()).eval()
    assert quiet(sine_episodes()).isfinite()
    with pytest.raises(ValueError, match="dropout"):
        quiet.train()(sine_episodes())


@pytest.mark.parametrize("kind", [0, 1])
def test_a_written_buffer_is_restored(kind):
    model = [Counting, Replacing][kind]()
    before = model.calls
    with pytest.raises(ValueError, match="buffers"):
        learner(model, batching="loop")(changed())
    assert model.calls is before
    assert before == 0


def test_a_written_buffer_is_restored_when_the_loss_is_refused_too():
    model = Counting()
    with pytest.raises(ValueError, match="scalar"):
        learner(model, lambda output, y: output - y, batching="loop")(changed())
    assert model.calls == 0


def test_dropout_switched_on_in_the_model_alone_is_found():
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(), nn.Linear(8, 1)).double()
    quiet = learner(model, estimator=outer.ForwardMode()).eval()
    quiet(sine_episodes())
    model.train()
    with pytest.raises(ValueError, match="dropout"):
        quiet(sine_episodes())


def test_the_probe_leaves_the_random_state_alone():
    one = sine_learner()
    state = torch.get_rng_state()
    one(sine_episodes(), keys=torch.arange(3))
    assert torch.equal(state, torch.get_rng_state())


def test_adapted_parameters_alone_cannot_be_called():
    adapted = inner.adapt(
        sine_learner().problem,
        sine_learner().meta,
        Episode(*(Batch(batch.x[0], batch.y[0]) for batch in sine_episodes())),
        torch.tensor(0),
    )
    with pytest.raises(TypeError, match="Adapt with learner.adapt"):
        adapted(torch.zeros(1, 1))


def test_what_is_learned_later_is_checked_again():
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1)).double()
    model[0].requires_grad_(False)
    one = learner(model, fast="1")
    one(changed())
    model[0].requires_grad_(True)
    with pytest.raises(ValueError, match="constants of the learner must not require grad"):
        one(changed())


@pytest.mark.parametrize("name", ["model", "criterion", "support_batches", "query_loss"])
def test_what_the_losses_were_made_of_cannot_be_replaced(name):
    with pytest.raises(AttributeError, match=f"learner's {name} must stay what it was built with"):
        setattr(learner(), name, print)


def test_writes_are_found_before_the_data_are_changed():
    episodes = changed(support_x=X - 1)
    with pytest.raises(ValueError, match="leave inputs"):
        learner(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(1, 1).double())).adapt(
            episodes.support
        )
    assert (episodes.support.x == -1).all()


def test_later_calls_are_checked_for_what_is_new_in_them():
    one = learner()
    one(changed())
    with pytest.raises(ValueError, match=r"support tensors are \(5, 1\) of torch.float32"):
        one(sine_episodes(dtype=torch.float32))
    with pytest.raises(ValueError, match="query outputs and targets must have one shape"):
        one(changed(query_y=X[:, :4, 0]))


def test_adapted_models_say_what_they_cannot_compute():
    adapted = learner().adapt(sine_episodes().support)
    with pytest.raises(
        ValueError, match=r"models' batch must be computable; got RuntimeError: .* make them fit"
    ):
        adapted.loss(sine_episodes(dtype=torch.float32).query)
    with pytest.raises(IndexError, match="index must be from -3 to 2; got 3"):
        adapted[3]


def test_masks_that_a_truncated_estimator_does_not_reach_are_named_whatever_was_drawn():
    rule, estimator = inner.Masked(inner.MetaSGD(0.01)), outer.Unrolled(truncate=1)
    for key in range(5):
        with pytest.raises(
            ValueError, match=r"give all that is learned a gradient; got none for \['rule.mask"
        ):
            learner(rule=rule, estimator=estimator)(sine_episodes(1), keys=torch.tensor([key]))


def test_labels_are_checked_again_when_tasks_grow():
    made = learner(models.mlp(1, [4], 3), F.cross_entropy)
    for n_way in (3, 4):
        x, y = torch.randn(2, n_way, 1), torch.arange(n_way).repeat(2, 1)
        episodes = Episode(Batch(x, y), Batch(x, y))
        if n_way == 3:
            made(episodes)
    with pytest.raises(ValueError, match="support labels must be below the model's 3 outputs"):
        made(episodes)


@pytest.mark.parametrize(
    "y", [torch.eye(3).long().repeat(2, 1, 1), torch.arange(3).repeat(2, 1)[..., None]]
)
@pytest.mark.parametrize("criterion", [F.cross_entropy, functional.cross_entropy])
def test_labels_with_an_axis_too_many_are_told(y, criterion):
    x = torch.randn(2, 3, 1)
    with pytest.raises(
        ValueError,
        match=r"support labels must be \[num_tasks, num_examples\]; got .* Write y.argmax",
    ):
        learner(models.mlp(1, [4], 3), criterion)(Episode(Batch(x, y), Batch(x, y)))


def of_words(criterion, num_words=6, model=None):
    x, y = (
        torch.randn(2, 4, num_words, 3),
        torch.arange(5).repeat(2 * 4 * num_words)[: 2 * 4 * num_words],
    )
    batch = Batch(x, y.reshape(2, 4, num_words))
    return learner(model or nn.Linear(3, 5), criterion)(Episode(batch, batch))


class ClassesFirst(nn.Linear):
    def forward(self, x):
        return super().forward(x).movedim(-1, 1)


@pytest.mark.parametrize("num_words", [3, 6])  # fewer and more words than classes
@pytest.mark.parametrize("criterion", [F.cross_entropy, nn.CrossEntropyLoss(), F.nll_loss])
def test_classes_along_the_last_axis(criterion, num_words):
    message = (
        f"support outputs must have their classes along axis 1; got (4, {num_words}, 5) "
        f"for labels (4, {num_words})."
        " Write output.movedim(-1, 1) in the model or in a criterion of your own."
    )
    assert_refused(lambda: of_words(criterion, num_words), ValueError, message)
    assert of_words(criterion, num_words, ClassesFirst(3, 5)).isfinite()
    assert of_words(lambda output, y: criterion(output.movedim(-1, 1), y), num_words).isfinite()


def test_outputs_of_words_for_labels_of_sentences():
    x, y = torch.randn(2, 4, 6, 3), torch.zeros(2, 4, dtype=torch.int64)
    message = "got (4, 6, 5) for labels (4,). Give the model outputs [num_examples, classes, ...]."
    call = learner(nn.Linear(3, 5), F.cross_entropy)
    assert_refused(lambda: call(Episode(Batch(x, y), Batch(x, y))), ValueError, message)


@pytest.mark.parametrize("shape", [(4, 6, 3), (4, 6, 7, 3)])
def test_classes_along_the_last_axis_in_a_criterion_of_ones_own(shape):
    x, y = torch.randn(2, *shape), torch.zeros(2, *shape[:-1], dtype=torch.int64)
    call = learner(nn.Linear(3, 5), lambda output, y: F.cross_entropy(output, y))
    message = "Classes are along axis 1 of an output: write output.movedim(-1, 1)."
    assert_refused(lambda: call(Episode(Batch(x, y), Batch(x, y))), ValueError, message)


def test_probabilities_are_no_labels():
    x, y = torch.randn(2, 3, 1), torch.rand(2, 3, 3).softmax(-1)
    assert learner(models.mlp(1, [4], 3), F.cross_entropy)(
        Episode(Batch(x, y), Batch(x, y))
    ).isfinite()


class Changed(outer.Unrolled):
    def __init__(self, change):
        super().__init__()
        object.__setattr__(self, "change", change)

    def __call__(self, *args):
        return self.change(super().__call__(*args))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda e: e._replace(diagnostics={"x": 3}),
            TypeError,
            "diagnostics of .* be scalar tensors; got {'x': 3}",
        ),
        (
            lambda e: e._replace(carry=Carry({"n": e.loss})),
            ValueError,
            "carry of .* be shaped as its init_carry, {}; got",
        ),
    ],
)
def test_an_estimate_that_does_not_keep_the_protocol(change, error, message):
    with pytest.raises(error, match=message):
        learner(estimator=Changed(change))(sine_episodes())


@dataclass(frozen=True)
class RatesOfSteps(inner.UpdateRule):
    """A rate for each of five steps, and noise from the global generator."""

    def init_meta(self, params):
        like = next(iter(params.values()))
        return {"rates": [like.new_tensor(0.01) for _ in range(5)]}

    def update(self, meta, grads, state, params, loss, step):
        return {
            name: -meta["rates"][step] * grad + 0 * torch.randn_like(grad)
            for name, grad in grads.items()
        }, state


def test_what_no_step_reaches_is_not_held_against_first_order():
    made = learner(rule=RatesOfSteps(), num_steps=3, estimator=outer.Unrolled(order=1))
    before = torch.get_rng_state()
    made.check(sine_episodes(), torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_constant_starts_need_no_gradient():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aux = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()

        def forward(self, x):
            return self.body(x), self.aux(x)

    options = {"learn_init": "body", "estimator": outer.Unrolled(order=1)}
    made = learner(
        Two(),
        lambda outputs, y: F.mse_loss(outputs[0], y),
        support_criterion=lambda outputs, y: F.mse_loss(outputs[0], y) + F.mse_loss(outputs[1], y),
        **options,
    )
    assert made(sine_episodes()).isfinite()
