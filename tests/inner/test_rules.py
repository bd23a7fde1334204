"""Every rule through the contract suite, and each against what it stands for."""

import math

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, testing
from tests.cases import RandomMask, keys, relative_difference, sine_learner, task

RULES = [
    inner.SGD(0.1),
    inner.MetaSGD(0.1),
    inner.LearnedRate(inner.SGD(0.1)),
    inner.LearnedRate(inner.SGD(0.1), per="tensor", num_steps=2),
    inner.LearnedRate(inner.SGD(0.1), per="parameter", num_steps=3),
    inner.LearnedRate(RandomMask(0.1)),
    inner.Clipped(inner.SGD(0.1), value=0.1),
    inner.Clipped(inner.MetaSGD(0.1), norm=0.2),
    inner.LearnedRate(inner.Clipped(inner.SGD(0.1), norm=0.2)),
    RandomMask(0.1),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_contract(rule):
    testing.check_update_rule(rule)


@pytest.mark.parametrize("per", ["scalar", "tensor", "parameter"])
@pytest.mark.parametrize("num_steps", [None, 1, 3, 7])
def test_learned_rates_start_as_the_rule(per, num_steps, episodes):
    learned = sine_learner(inner.LearnedRate(inner.SGD(0.05), per, num_steps)).adapt(episodes.support)
    plain = sine_learner(inner.SGD(0.05)).adapt(episodes.support)
    assert relative_difference(learned.params, plain.params) < 1e-12


def test_shapes_of_learned_rates():
    params = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    shapes = {
        ("scalar", None): (),
        ("scalar", 5): (5,),
        ("tensor", None): {"a": (), "b": ()},
        ("tensor", 5): {"a": (5,), "b": (5,)},
        ("parameter", None): {"a": (2, 3), "b": (4,)},
        ("parameter", 5): {"a": (5, 2, 3), "b": (5, 4)},
    }
    for (per, num_steps), expected in shapes.items():
        rate = inner.LearnedRate(inner.SGD(0.1), per, num_steps).init_meta(params)["rate"]
        assert (rate.shape if per == "scalar" else {n: r.shape for n, r in rate.items()}) == expected


def test_the_last_rate_holds():
    rule = inner.LearnedRate(inner.SGD(0.1), num_steps=2)
    params = {"w": torch.zeros(1)}
    meta = {"rate": torch.tensor([1.0, 2.0]), "rule": {}}
    used = [
        -rule.update(meta, {"w": torch.ones(1)}, (), params, torch.tensor(0.0), step)[0]["w"].item()
        for step in range(4)
    ]
    assert used == [1, 2, 2, 2]


def test_clipping_matches_torch():
    grads = {"a": torch.tensor([3.0, -4.0]), "b": torch.tensor([[12.0]])}
    leaves = [torch.zeros_like(grad).requires_grad_() for grad in grads.values()]

    def clipped(**bound):
        rule = inner.Clipped(inner.SGD(1.0), **bound)
        updates, _ = rule.update({}, grads, (), grads, torch.tensor(0.0), 0)
        return [-update for update in updates.values()]

    for bound in (1.0, 100.0):
        for leaf, grad in zip(leaves, grads.values(), strict=True):
            leaf.grad = grad.clone()
        torch.nn.utils.clip_grad_norm_(leaves, bound)
        torch.testing.assert_close(clipped(norm=bound), [leaf.grad for leaf in leaves])
    torch.nn.utils.clip_grad_value_(leaves, 3.5)
    assert [part.tolist() for part in clipped(value=3.5)] == [[3, -3.5], [[3.5]]]


def test_norm_clipping_is_differentiable_at_a_zero_gradient():
    rule = inner.Clipped(inner.SGD(1.0), norm=1.0)

    def total(grad):
        return rule.update({}, {"w": grad}, (), {"w": grad}, torch.tensor(0.0), 0)[0]["w"].sum()

    assert torch.func.grad(total)(torch.zeros(3)).tolist() == [-1, -1, -1]


def test_step_is_gradient_descent(episodes):
    learner, episode = sine_learner(inner.SGD(0.1)), task(episodes)
    meta = learner.meta
    first = inner.step(learner.problem, meta, meta.init, (), episode, 0)
    loss = F.mse_loss(learner.model(episode.support.x), episode.support.y)
    loss.backward()
    assert first.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    for name, param in learner.model.named_parameters():
        torch.testing.assert_close(first.grads[name], param.grad, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(first.params[name], param - 0.1 * param.grad, rtol=1e-12, atol=1e-14)


def test_adapt_returns_the_state(episodes):
    learner = sine_learner(RandomMask(0.1))
    adapted = inner.adapt(learner.problem, learner.meta, task(episodes), keys()[0])
    assert set(adapted.state) == set(adapted.params)


BAD = [
    (lambda: inner.SGD(0), ValueError, "SGD's lr must be positive and finite; got 0."),
    (lambda: inner.SGD(-1.0), ValueError, "inner.SGD(lr=0.01)"),
    (lambda: inner.SGD(math.nan), ValueError, "got nan"),
    (lambda: inner.SGD("fast"), TypeError, "must be a number; got 'fast'"),
    (lambda: inner.LearnedRate(0.1), TypeError, "LearnedRate(SGD(lr=0.01))"),
    (lambda: inner.LearnedRate(inner.SGD(0.1), per="tensors"), ValueError, "Did you mean 'tensor'?"),
    (lambda: inner.LearnedRate(inner.SGD(0.1), num_steps=0), ValueError, "at least 1; got 0"),
    (lambda: inner.MetaSGD(0.0), ValueError, "must be positive"),
    (lambda: inner.Clipped(inner.SGD(0.1)), ValueError, "exactly one of value and norm"),
    (lambda: inner.Clipped(inner.SGD(0.1), value=1.0, norm=1.0), ValueError, "exactly one"),
    (lambda: inner.Clipped(inner.SGD(0.1), norm=-1.0), ValueError, "Clipped's norm must be positive"),
    (lambda: inner.Clipped("sgd", norm=1.0), TypeError, "Clipped(SGD(lr=0.01), value=10.0)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
