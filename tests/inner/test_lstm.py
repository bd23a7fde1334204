import math

import pytest
import torch

from metalearn import inner, outer
from metalearn._tree import tree_leaves
from tests.cases import relative_difference, sine_learner


def test_theorem_1_it_starts_as_gradient_descent(episodes):
    lstm = sine_learner(inner.LSTM(0.05, forget_bias=50.0, gate_range=0.0))
    plain = sine_learner(inner.SGD(0.05))
    for num_steps in range(1, 5):
        ours, theirs = (
            learner.adapt(episodes.support, num_steps).params for learner in (lstm, plain)
        )
        assert relative_difference(ours, theirs) < 1e-12


@pytest.mark.parametrize(("gate_range", "difference"), [(0.0, 1e-3), (0.01, 0.01)])
def test_the_default_start_forgets_next_to_nothing(gate_range, difference, episodes):
    lstm, plain = (
        sine_learner(inner.LSTM(0.05, gate_range=gate_range)),
        sine_learner(inner.SGD(0.05)),
    )
    ours, theirs = (learner.adapt(episodes.support).params for learner in (lstm, plain))
    assert relative_difference(ours, theirs) < difference


@pytest.mark.parametrize("order", [1, 2])
def test_all_weights_have_a_gradient_at_the_start(order, episodes):
    def gradient(rule):
        learner = sine_learner(rule, estimator=outer.Unrolled(order=order))
        return learner.estimate(episodes).gradient.rule

    assert all(
        leaf.ne(0).any(-1).all() for leaf in tree_leaves(gradient(inner.LSTM(0.05, hidden_size=3)))
    )
    assert gradient(inner.LSTM(0.05, hidden_size=3, gate_range=0.0))["lstm"]["weight"].eq(0).all()


def test_the_gates_weights_start_at_random_from_torchs_generator():
    def start(seed, gate_range=0.01):
        torch.manual_seed(seed)
        meta = inner.LSTM(gate_range=gate_range).init_meta({"w": torch.zeros(1)})
        return torch.cat([gate["weight"] for gate in meta["gates"].values()])

    weights = start(0, gate_range=0.5)
    assert 0.4 < weights.abs().max() <= 0.5
    assert not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(start(0), 0.02 * weights)
    assert not torch.equal(start(0), start(1))


def test_one_step_against_torch():
    """The first layer is `nn.LSTMCell`'s arithmetic; the gates see its output, the parameter and
    their last values."""
    torch.manual_seed(0)
    rule = inner.LSTM(0.1, hidden_size=3)
    params = {"w": torch.randn(2, 2), "b": torch.randn(2)}
    meta = torch.utils._pytree.tree_map(
        lambda leaf: leaf + 0.3 * torch.randn_like(leaf), rule.init_meta(params)
    )
    grads = [{name: torch.randn_like(param) for name, param in params.items()} for _ in range(2)]
    losses = [torch.tensor(1.7), torch.tensor(0.2)]

    cell = torch.nn.LSTMCell(4, 3)
    with torch.no_grad():
        cell.weight_ih.copy_(meta["lstm"]["weight"][:, :4])
        cell.weight_hh.copy_(meta["lstm"]["weight"][:, 4:])
        cell.bias_ih.copy_(meta["lstm"]["bias"])
        cell.bias_hh.zero_()
    theta = torch.cat([params["w"].reshape(-1), params["b"]])
    hidden, gates, state = None, {"input": torch.zeros(6), "forget": torch.zeros(6)}, None
    state = rule.init_state(meta, params, torch.tensor(0))
    for step in range(2):
        grad = torch.cat([grads[step]["w"].reshape(-1), grads[step]["b"]])
        loss = losses[step].expand(6)
        inputs = torch.stack([grad.abs().log() / 10, grad.sign(), loss.log() / 10, loss.sign()], 1)
        hidden = cell(inputs, hidden)
        seen = {
            name: torch.cat([hidden[0], theta[:, None], gates[name][:, None]], 1) for name in gates
        }
        gates = {
            name: torch.sigmoid(
                seen[name] @ meta["gates"][name]["weight"][0] + meta["gates"][name]["bias"]
            )
            for name in gates
        }
        expected = gates["forget"] * theta - gates["input"] * grad
        updates, state = rule.update(meta, grads[step], state, params, losses[step], step)
        params = {name: params[name] + updates[name] for name in params}
        torch.testing.assert_close(torch.cat([params["w"].reshape(-1), params["b"]]), expected)
        theta = expected


def test_each_gate_sees_its_own_last_value():
    """Gates of their last values alone, where neither is saturated."""
    rule, params = (
        inner.LSTM(0.1, hidden_size=3, forget_bias=0.0, gate_range=0.0),
        {"w": torch.tensor([2.0])},
    )
    meta, slopes = rule.init_meta(params), {"input": 1.5, "forget": -0.7}
    for name, slope in slopes.items():
        meta["gates"][name]["weight"][0, -1] = slope
    bias = {name: meta["gates"][name]["bias"].item() for name in slopes}
    state, gates, theta = (
        rule.init_state(meta, params, torch.tensor(0)),
        dict.fromkeys(slopes, 0.0),
        2.0,
    )
    for step in range(3):
        gates = {
            name: 1 / (1 + math.exp(-slopes[name] * gates[name] - bias[name])) for name in gates
        }
        theta = gates["forget"] * theta - gates["input"] * 0.3
        updates, state = rule.update(
            meta, {"w": torch.tensor([0.3])}, state, params, torch.tensor(1.0), step
        )
        params = {"w": params["w"] + updates["w"]}
        assert params["w"].item() == pytest.approx(theta, rel=1e-5)


def test_second_order_is_finite_at_dead_units(episodes):
    learner = sine_learner(inner.LSTM(0.05))
    with torch.no_grad():
        learner.model[0].bias.fill_(-1e3)
    gradient = learner.estimate(episodes).gradient
    assert all(leaf.isfinite().all() for leaf in torch.utils._pytree.tree_leaves(gradient))


BAD = [
    (lambda: inner.LSTM(1.0), ValueError, "strictly between 0 and 1; got 1.0"),
    (lambda: inner.LSTM(0), ValueError, "LSTM(lr=0.01)"),
    (lambda: inner.LSTM(hidden_size=0), ValueError, "at least 1"),
    (lambda: inner.LSTM(hidden_size=2.0), TypeError, "must be an int"),
    (lambda: inner.LSTM(forget_bias="4"), TypeError, "must be a number"),
    (
        lambda: inner.LSTM(gate_range=-0.1),
        ValueError,
        "LSTM's gate_range must be at least 0; got -0.1",
    ),
    (
        lambda: sine_learner(inner.LSTM(), estimator=outer.ParameterDifference()),
        ValueError,
        "one that reaches init only",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
