from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, outer
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.types import Batch, Episode, Meta
from tests.cases import relative_difference, sine_learner


def gradient_descent(lr, num_layers):
    """Weights of a ReLU network that outputs -lr times its input: one path for positive gradients,
    one for negative."""
    both = torch.tensor([[1.0], [-1.0], [0.0], [0.0]]).double()
    through = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])).double()
    out = torch.tensor([[-lr, lr, 0.0, 0.0]], dtype=torch.float64)
    weights = [both, *[through] * (num_layers - 1), out]
    return {
        "layers": [{"weight": weight, "bias": weight.new_zeros(len(weight))} for weight in weights]
    }


@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_subsumes_gradient_descent(num_layers, episodes):
    turtle = sine_learner(inner.Turtle(hidden=(4,) * num_layers), num_steps=4)
    with torch.no_grad():
        for own, wanted in zip(
            turtle.rule()["layers"], gradient_descent(0.05, num_layers)["layers"], strict=True
        ):
            for name, tensor in wanted.items():
                own[name].copy_(tensor)
    plain = sine_learner(inner.SGD(0.05), num_steps=4)
    for num_steps in range(1, 5):
        ours = turtle.adapt(episodes.support, num_steps).params
        assert relative_difference(ours, plain.adapt(episodes.support, num_steps).params) < 1e-12
    ours, theirs = (learner.estimate(episodes).gradient for learner in (turtle, plain))
    assert relative_difference(ours.init, theirs.init) < 1e-10


def updates(rule, meta, grads):
    """Return what the rule does to one element with these gradients in turn."""
    params, state, seen = (
        {"w": torch.zeros(1)},
        rule.init_state(meta, {"w": torch.zeros(1)}, torch.tensor(0)),
        [],
    )
    for step, grad in enumerate(grads):
        loss = torch.tensor(2.0 + step)
        change, state = rule.update(meta, {"w": torch.tensor([grad])}, state, params, loss, step)
        seen.append(change["w"].item())
    return seen


def adds_up(rule):
    """Return weights of a linear network that adds up its inputs."""
    meta = rule.init_meta({"w": torch.zeros(1)})
    return {
        "layers": [
            {"weight": torch.ones_like(layer["weight"]), "bias": layer["bias"]}
            for layer in meta["layers"]
        ]
    }


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (("grad",), [1.0, 3.0, -2.0]),
        (("loss",), [2.0, 3.0, 4.0]),
        (("step",), [0.0, 1.0, 2.0]),
        (("grad_history",), [1.0, 0.9 * 1 + 0.1 * 3, 0.9 * 1.2 - 0.1 * 2]),
        (("grad", "update_history"), [1.0, 3 + 0.1 * 1, -2 + 0.9 * 0.1 + 0.1 * 3.1]),
    ],
)
def test_inputs(inputs, expected):
    rule = inner.Turtle(inputs, hidden=(), beta=0.9)
    torch.testing.assert_close(updates(rule, adds_up(rule), [1.0, 3.0, -2.0]), expected)
    half = replace(rule, lr=0.5)
    torch.testing.assert_close(
        updates(half, adds_up(rule), [1.0, 3.0, -2.0]), [0.5 * e for e in expected]
    )


def by_hand(rule, start, rates, support, query, num_steps):
    """Return the query loss of TURTLE as the thesis' code unrolls it on w * x, step by step in
    plain autograd."""
    (x, y), theta, mean, applied = support, start, torch.zeros_like(start), None
    for step in range(num_steps):
        loss = (theta * x - y).square().mean()
        (grad,) = torch.autograd.grad(loss, theta, create_graph=True)
        if step > 0:
            mean = 0.7 * mean + 0.3 * applied
        columns = torch.stack([grad, loss.detach(), mean])[None]
        for index, layer in enumerate(rule["layers"]):
            columns = F.linear(columns.tanh() if index else columns, layer["weight"], layer["bias"])
        applied = rates * columns.squeeze()
        theta = theta + applied
    return (theta * query[0] - query[1]).square().mean()


def test_loss_as_a_value_and_applied_updates_are_those_of_the_thesis_code():
    """Against a loop by hand: value and gradient to start, network and rate."""
    torch.manual_seed(0)
    turtle = inner.Turtle(
        ("grad", "loss", "update_history"),
        (4,),
        "tanh",
        beta=0.7,
        loss_as_value=True,
        applied_updates=True,
    )
    rule = inner.LearnedRate(turtle, "parameter")
    support, query = torch.randn(2, 2, 5, dtype=torch.float64)

    def loss(params, batch):
        return (params["w"] * batch[0] - batch[1]).square().mean()

    start = torch.tensor(0.4, dtype=torch.float64)
    meta = Meta({"w": start}, {}, rule.init_meta({"w": start}))
    meta = tree_map(lambda leaf: (leaf + 0.3 * torch.randn_like(leaf)).requires_grad_(), meta)
    expected = by_hand(meta.rule["rule"], meta.init["w"], meta.rule["rate"]["w"], support, query, 4)
    theirs = torch.autograd.grad(expected, tree_leaves(meta))
    for estimator in (outer.Unrolled(), outer.Stepwise()):
        function = outer.meta_gradient(
            lambda params, shared, episode, step: loss(params, episode.support),
            lambda params, shared, episode: loss(params, episode.query),
            rule,
            estimator,
            num_steps=4,
        )
        estimate = function(
            tree_detach(meta), Episode(Batch(*support), Batch(*query)), torch.tensor(0)
        )
        torch.testing.assert_close(estimate.loss, expected)
        assert relative_difference(tree_leaves(estimate.gradient), theirs) < 1e-10


def test_only_a_loss_that_it_sees_is_taken_as_a_value():
    assert inner.Turtle(("grad", "processed_loss"), loss_as_value=True).as_values == {"loss"}
    assert (
        inner.Turtle(("grad", "loss")).as_values
        == inner.Turtle(("grad",), loss_as_value=True).as_values
        == set()
    )


def test_applied_updates_are_what_a_mask_lets_through():
    rule = inner.Masked(inner.Turtle(("grad", "update_history"), (), applied_updates=True))
    params = {"w": torch.zeros(64)}
    meta = rule.init_meta(params)
    state, seen = rule.init_state(meta, params, torch.tensor(0)), []
    for step in range(2):
        updates, state = rule.update(
            meta, {"w": torch.ones(64)}, state, params, torch.tensor(1.0), step
        )
        params = {"w": params["w"] + updates["w"]}
        seen.append(updates["w"])
    torch.testing.assert_close(state["rule"]["update_history"], 0.1 * seen[0])
    assert 0 < state["mask"]["w"].sum() < 64


@pytest.mark.parametrize(
    ("inputs", "count"), [(("grad",), 1741), (("grad", "grad_history", "step"), 1781)]
)
def test_number_of_parameters(inputs, count):
    meta = inner.Turtle(inputs).init_meta({"w": torch.zeros(3)})
    assert sum(tensor.numel() for layer in meta["layers"] for tensor in layer.values()) == count


def test_the_thesis_turtle_of_five_steps(episodes):
    rule = inner.LearnedRate(
        inner.Turtle(("grad", "grad_history", "step"), beta=0.9, lr=0.01), "parameter"
    )
    learner = sine_learner(rule, num_steps=5)
    assert all(leaf.isfinite().all() for leaf in tree_leaves(learner.estimate(episodes).gradient))
    rates = sum(
        rate.numel() for name, rate in learner.rule.named_parameters() if name.startswith("rate.")
    )
    assert rates == sum(param.numel() for param in learner.model.parameters())
    shapes = [layer["weight"].shape for layer in learner.meta.rule["rule"]["layers"]]
    assert shapes == [(20, 3), *[(20, 20)] * 4, (1, 20)]


def test_a_network_serves_any_model():
    rule = inner.Turtle(("grad", "grad_history"), hidden=(5,))
    meta = rule.init_meta({"w": torch.zeros(3)})
    other = {"a": torch.randn(2, 3, 3, 3), "b": torch.randn(4)}
    change, _ = rule.update(
        meta, other, rule.init_state(meta, other, torch.tensor(0)), other, torch.tensor(1.0), 0
    )
    assert {name: tensor.shape for name, tensor in change.items()} == {"a": (2, 3, 3, 3), "b": (4,)}


def test_names_of_meta_parameters():
    learner = sine_learner(inner.LearnedRate(inner.Turtle(hidden=(3,)), "parameter"))
    names = [name for name, _ in learner.rule.named_parameters()]
    assert "rate.0.weight" in names
    assert "rule.layers.0.weight" in names


BAD = [
    (lambda: inner.Turtle(("grads",)), ValueError, "Did you mean 'grad'?"),
    (lambda: inner.Turtle(("grad", "grad")), ValueError, "each once"),
    (lambda: inner.Turtle(()), ValueError, "at least one"),
    (lambda: inner.Turtle("grad"), TypeError, 'Turtle(inputs=("grad", "step")'),
    (lambda: inner.Turtle(hidden=20), TypeError, "hidden must be a tuple; got 20"),
    (lambda: inner.Turtle(hidden=(20, 0)), ValueError, "at least 1; got 0"),
    (lambda: inner.Turtle(activation="rellu"), ValueError, "Did you mean 'relu'?"),
    (
        lambda: inner.Turtle(activation=lambda x: x.sum()),
        ValueError,
        "be elementwise; got shape ()",
    ),
    (lambda: inner.Turtle(activation=torch.nn.ReLU), TypeError, "be a name or a function"),
    (lambda: inner.Turtle(activation=3), TypeError, 'activation="tanh"'),
    (lambda: inner.Turtle(beta=1.5), ValueError, "beta must be from 0 to 1; got 1.5"),
    (lambda: inner.Turtle(lr=0.0), ValueError, "must be positive"),
    (
        lambda: inner.Turtle(loss_as_value="loss"),
        TypeError,
        "Turtle's loss_as_value must be True or False",
    ),
    (
        lambda: inner.Turtle(applied_updates=1),
        TypeError,
        "Turtle's applied_updates must be True or False",
    ),
    (
        lambda: sine_learner(inner.Turtle(hidden=(3,)), estimator=outer.ParameterDifference()),
        ValueError,
        "Use an estimator that reaches them, as outer.Unrolled() does",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_any_elementwise_activation(episodes):
    named, function = (
        inner.Turtle(hidden=[3], activation="silu"),
        inner.Turtle(hidden=(3,), activation=F.silu),
    )
    learners = [sine_learner(rule) for rule in (named, function)]
    assert (
        relative_difference(*(learner.adapt(episodes.support).params for learner in learners)) == 0
    )
