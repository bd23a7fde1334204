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


ADAMW = inner.AdamW(0.05, weight_decay=0.7)


@pytest.mark.parametrize("per", ["scalar", "tensor"])
@pytest.mark.parametrize(
    ("rule", "names", "space"),
    [
        (ADAMW, ("lr", "weight_decay"), "log"),
        (ADAMW, "betas", "logit"),
        (inner.Momentum(0.05, 0.8, dampening=0.3), ("momentum", "dampening"), "linear"),
        (inner.Clipped(inner.Scheduled(ADAMW, inner.Cosine(5)), value=0.1), ("value",), "log"),
        (inner.Scheduled(ADAMW, inner.Cosine(5)), ("rule.lr", "schedule.num_steps"), "log"),
        (inner.LearnedRate(ADAMW, "tensor"), "rule.eps", "log"),
        (inner.Learned(ADAMW, "betas", "logit", "tensor"), "rule.lr", "log"),
    ],
    ids=str,
)
def test_spaces_and_tensors_start_as_the_rules_own(rule, names, space, per, episodes):
    learned = sine_learner(inner.Learned(rule, names, space, per))
    ours, plain = (
        learner.adapt(episodes.support).params for learner in (learned, sine_learner(rule))
    )
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-9, atol=1e-12)
    learned(episodes).backward()
    assert all(param.grad.isfinite() for param in learned.rule.parameters())


def test_what_is_learned_in_a_space():
    params = {"a": torch.zeros(2, 3).double(), "b": torch.zeros(4).double()}
    per_tensor = inner.Learned(ADAMW, ("lr", "betas"), "logit", "tensor").init_meta(params)
    assert per_tensor["lr"].keys() == {"a", "b"}
    torch.testing.assert_close(
        [value.sigmoid().item() for value in per_tensor["betas"]["b"]], [0.9, 0.999]
    )
    meta = inner.Learned(inner.SGD(0.25), "lr", "log").init_meta(params)
    assert meta["lr"].exp().item() == pytest.approx(0.25)


def test_every_tensor_follows_its_own_numbers():
    params = {"a": torch.zeros(2), "b": torch.zeros(3)}
    grads = {"b": torch.ones(3), "a": torch.ones(2)}
    rule = inner.Learned(inner.Momentum(1.0, 0.5), "lr", "linear", "tensor")
    meta = {"lr": {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, "rule": {}}
    state = rule.init_state(meta, params, torch.tensor(0))
    for expected in (1.0, 1.5):
        updates, state = rule.update(meta, grads, state, params, torch.zeros(()), 0)
        assert updates["a"].tolist() == [-2 * expected] * 2
        assert updates["b"].tolist() == [-3 * expected] * 3


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
    (
        lambda: inner.Learned(inner.Clipped(inner.SGD(0.1), norm=1.0), "rule.rl"),
        ValueError,
        "must be one of ['rule.lr', 'norm']; got 'rule.rl'. Did you mean 'rule.lr'?",
    ),
    (
        lambda: inner.Learned(inner.Momentum(0.1, dampening=0), "dampening", "log"),
        ValueError,
        "Momentum's dampening with space='log' must be positive and finite; got 0. "
        "Write Learned(rule, 'dampening'), to learn it as it is.",
    ),
    (
        lambda: inner.Learned(inner.Momentum(0.1, 1), "momentum", "logit"),
        ValueError,
        "Momentum's momentum with space='logit' must be strictly between 0 and 1; got 1",
    ),
    (lambda: inner.Learned(inner.SGD(0.1), "lr", "logs"), ValueError, "Did you mean 'log'?"),
    (
        lambda: inner.Learned(inner.SGD(0.1), "lr", per="parameter"),
        ValueError,
        "Learned's per must be one of ['scalar', 'tensor']; got 'parameter'.",
    ),
    (
        lambda: inner.Learned(inner.Clipped(inner.SGD(0.1), norm=1.0), "norm", per="tensor"),
        ValueError,
        'the rule of Learned(per="tensor") must act on each tensor alone, as elementwise rules do',
    ),
    (
        lambda: inner.Learned(inner.Groups({"*": inner.AdamW(1e-3)}), "lr"),
        ValueError,
        "Learned's names must be those of one rule; got 'lr'. "
        "Learn it in its group: Groups({'*': Learned(AdamW(1e-3), 'lr')}).",
    ),
    (
        lambda: inner.Learned(
            inner.Scheduled(inner.Groups({"*": inner.SGD(0.1)}), inner.WarmUp(3)), "rule.rules"
        ),
        ValueError,
        "Learn it in its group",
    ),
    (
        lambda: inner.Learned(
            inner.Scheduled(inner.Groups({"*": inner.SGD(0.1)}), inner.WarmUp(3)), "schedule.steps"
        ),
        ValueError,
        "must be one of ['schedule.num_steps']; got 'schedule.steps'. "
        "Did you mean 'schedule.num_steps'?",
    ),
    (lambda: inner.Learned("sgd", "lr"), TypeError, "Learned(SGD(lr=0.01), ...)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
