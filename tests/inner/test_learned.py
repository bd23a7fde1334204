import pytest
import torch

from metalearn import inner
from tests.cases import sine_learner
from tests.inner import written


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (inner.Momentum(0.05), ["momentum"]),
        (inner.Nesterov(0.05), ["lr", "momentum"]),
        (inner.Adam(0.05), ["betas", "eps", "lr"]),
        (inner.RMSProp(0.05), ["alpha"]),
    ],
    ids=str,
)
def test_learned_hyperparameters_start_as_the_rules_own(rule, names, episodes):
    learned = sine_learner(inner.Learned(rule, names))
    ours, plain = (
        learner.adapt(episodes.support).params for learner in (learned, sine_learner(rule))
    )
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-9, atol=1e-12)
    assert {name.split(".")[0] for name, _ in learned.rule.named_parameters()} == set(names)


def test_what_only_later_steps_use_can_be_learned():
    assert inner.Learned(inner.Momentum(1), ("lr", "momentum")).names == ("lr", "momentum")
    assert inner.Learned(inner.Turtle(("grad_history",)), "beta").names == ("beta",)
    assert inner.Learned(
        inner.Turtle(("update_history",), (), applied_updates=True), "beta"
    ).names == ("beta",)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (written.Scaled(), "lr"),
        (written.Scaled(), "pair"),
        (written.Scaled(norm=2.0), "norm"),
        (written.Scheduled(), "bias"),
        (written.Unchecked(0.1), "lr"),
        (written.Narrow(0.1), "momentum"),
    ],
    ids=str,
)
def test_floats_of_users_rules_can_be_learned(rule, name):
    assert inner.Learned(rule, name).names == (name,)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (written.Scaled(), "times"),
        (written.Scaled(), "norm"),
        (written.Unchecked(0.1), "twice"),
        (written.Narrow(0.1), "what"),
    ],
    ids=str,
)
def test_what_is_no_float_cannot_be_learned(rule, name):
    with pytest.raises(TypeError, match="be a number to be learned"):
        inner.Learned(rule, name)


def test_users_rules_inherit_checks():
    assert written.Unchecked(0).twice is True  # whose own __post_init__ leaves them out
    with pytest.raises(ValueError, match="Narrow's momentum must be from 0 to 1; got 2"):
        written.Narrow(0.1, momentum=2)


BAD = [
    (
        lambda: inner.Learned(inner.Momentum(0.1), "momentun"),
        ValueError,
        "Did you mean 'momentum'?",
    ),
    (lambda: inner.Learned(inner.Momentum(0.1), ()), ValueError, 'Learned(rule, "lr")'),
    (
        lambda: inner.Learned(inner.Clipped(inner.SGD(0.1), norm=1.0), "rule"),
        TypeError,
        "be a number to be learned",
    ),
    (
        lambda: inner.Learned(inner.SGD(0.1), (0.1, "lr")),
        TypeError,
        "be a name or a tuple of them; got (0.1, 'lr')",
    ),
    (lambda: inner.Learned(inner.LSTM(), "lr"), ValueError, "which it does not use"),
    (
        lambda: inner.Learned(inner.LSTM(), "hidden_size"),
        TypeError,
        "be a number to be learned; got 20",
    ),
    (lambda: inner.Learned(inner.Turtle(), "hidden"), TypeError, "be a number to be learned"),
    (
        lambda: inner.Learned(inner.KroneckerNetwork(0.1), "num_layers"),
        TypeError,
        "be a number to be learned; got 2",
    ),
    (lambda: inner.Learned("sgd", "lr"), TypeError, "Learned(SGD(lr=0.01), ...)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
