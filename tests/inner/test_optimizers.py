"""Momentum, Nesterov, Adam and RMSProp against `torch.optim`."""

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner
from metalearn._tree import tree_leaves
from tests.cases import sine_learner, task

PAIRS = [
    (inner.SGD(0.05), lambda p: torch.optim.SGD(p, 0.05)),
    (inner.Momentum(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8)),
    (inner.Nesterov(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, momentum=0.8, nesterov=True)),
    (inner.Adam(0.05), lambda p: torch.optim.Adam(p, 0.05)),
    (inner.Adam(0.05, (0.0, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 0.05, (0.0, 0.9), 1e-3)),
    (inner.RMSProp(0.05), lambda p: torch.optim.RMSprop(p, 0.05)),
    (inner.RMSProp(0.05, 0.5, 1e-2), lambda p: torch.optim.RMSprop(p, 0.05, 0.5, 1e-2)),
]


@pytest.mark.parametrize(("rule", "optimizer"), PAIRS, ids=lambda value: str(value) if hasattr(value, "lr") else "")
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    support = task(episodes.support)
    for num_steps in range(1, 6):
        adapted = sine_learner(rule).adapt(torch.utils._pytree.tree_map(lambda leaf: leaf[None], support), num_steps)
        model = sine_learner().model
        theirs = optimizer(model.parameters())
        for _ in range(num_steps):
            theirs.zero_grad()
            F.mse_loss(model(support.x), support.y).backward()
            theirs.step()
        for name, param in model.named_parameters():
            torch.testing.assert_close(adapted.params[name][0], param.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [pair[0] for pair in PAIRS], ids=str)
def test_second_derivative_is_finite_at_zero_gradients(rule, episodes):
    learner = sine_learner(rule)
    with torch.no_grad():
        learner.model[0].bias.fill_(-1e3)  # no unit is alive
    gradient = learner.estimate(episodes).gradient
    assert all(leaf.isfinite().all() for leaf in tree_leaves(gradient))


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
    ours, plain = (learner.adapt(episodes.support).params for learner in (learned, sine_learner(rule)))
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-9, atol=1e-12)
    assert {name.split(".")[0] for name, _ in learned.rule.named_parameters()} == set(names)


BAD = [
    (lambda: inner.Momentum(0.1, 1.5), ValueError, "Momentum's momentum must be from 0 to 1; got 1.5"),
    (lambda: inner.Nesterov(-1.0), ValueError, "Nesterov's lr must be positive"),
    (lambda: inner.Adam(0.1, betas=0.9), TypeError, "betas=(0.9, 0.999)"),
    (lambda: inner.Adam(0.1, betas=(0.9, 1.0)), ValueError, "at least 0 and below 1"),
    (lambda: inner.Adam(0.1, eps=0.0), ValueError, "Adam's eps must be positive"),
    (lambda: inner.RMSProp(0.1, alpha=1.0), ValueError, "RMSProp's alpha must be at least 0"),
    (lambda: inner.Learned(inner.Momentum(0.1), "momentun"), ValueError, "Did you mean 'momentum'?"),
    (lambda: inner.Learned(inner.Momentum(0.1), ()), ValueError, 'Learned(rule, "lr")'),
    (lambda: inner.Learned(inner.Clipped(inner.SGD(0.1), norm=1.0), "rule"), TypeError, "be a number to be learned"),
    (lambda: inner.Learned("sgd", "lr"), TypeError, "Learned(SGD(lr=0.01), ...)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
