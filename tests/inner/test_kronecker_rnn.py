import pytest
import torch

from metalearn import inner
from metalearn._tree import tree_leaves, tree_map
from tests.cases import relative_difference, sine_learner


def identity(x):
    return x


@pytest.mark.parametrize("shape", [(3, 4), (5,), (5, 2, 3, 3)], ids=str)
def test_is_an_elman_network_of_the_gradients(shape):
    """Against the products written out, matrix by matrix, over three steps."""
    torch.manual_seed(0)
    rule, params = inner.KroneckerRNN(0.1), {"w": torch.randn(shape, dtype=torch.float64)}
    meta = tree_map(torch.randn_like, rule.init_meta(params))
    state = rule.init_state(meta, params, torch.tensor(0))
    of = meta["w"]
    matrix = {1: (5, 1), 2: (3, 4), 4: (5, 2, 9)}[len(shape)]  # one for every filter
    hidden = torch.zeros(matrix, dtype=torch.float64)
    for step in range(3):
        grad = torch.randn(shape, dtype=torch.float64)
        hidden = torch.tanh(
            of["grad"]["L"] @ grad.reshape(matrix) @ of["grad"]["R"]
            + of["hidden"]["L"] @ hidden @ of["hidden"]["R"]
        )
        expected = -0.1 * (of["output"]["L"] @ hidden @ of["output"]["R"]).reshape(shape)
        updates, state = rule.update(meta, {"w": grad}, state, params, torch.zeros(()), step)
        torch.testing.assert_close(updates["w"], expected)
        assert state["w"].shape == shape


def test_starts_as_the_activation_of_the_gradient(episodes):
    ours, network = (
        sine_learner(rule).adapt(episodes.support).params
        for rule in (
            inner.KroneckerRNN(0.05),
            inner.KroneckerNetwork(0.05, num_layers=2, activation="tanh"),
        )
    )
    assert relative_difference(ours, network) < 1e-12


def test_linear_with_a_multiple_of_the_identity_it_is_momentum(episodes):
    learner = sine_learner(inner.KroneckerRNN(0.05, activation=identity), num_steps=5)
    with torch.no_grad():
        for name, param in learner.rule.named_parameters():
            if name.endswith("hidden.L"):
                param.copy_(0.7 * torch.eye(len(param), dtype=param.dtype))
    theirs = sine_learner(inner.Momentum(0.05, momentum=0.7), num_steps=5)
    ours = learner.adapt(episodes.support).params
    assert relative_difference(ours, theirs.adapt(episodes.support).params) < 1e-12


def test_the_recurrence_is_learned_from_its_start(episodes):
    gradient = sine_learner(inner.KroneckerRNN(0.05)).estimate(episodes).gradient.rule
    assert all(of["hidden"]["L"].abs().max() > 0 for of in gradient.values())
    assert all(leaf.isfinite().all() for leaf in tree_leaves(gradient))


BAD = [
    (lambda: inner.KroneckerRNN(0.0), ValueError, "KroneckerRNN's lr must be positive"),
    (lambda: inner.KroneckerRNN(0.1, activation="tan"), ValueError, "Did you mean 'tanh'?"),
    (
        lambda: inner.KroneckerRNN(0.1).init_meta({"w": torch.zeros(9_000, 2)}),
        ValueError,
        "a side of 9,000 in 'w'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
