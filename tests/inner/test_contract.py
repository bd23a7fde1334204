"""Every rule through the contract suite."""

import pytest

from metalearn import inner, testing
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner

SGD = inner.SGD(0.1)
EVERYTHING = (
    "grad",
    "processed_grad",
    "loss",
    "processed_loss",
    "grad_history",
    "update_history",
    "step",
)

RULES = [
    SGD,
    inner.Momentum(0.1),
    inner.Momentum(0.1, dampening=0.3),
    inner.Nesterov(0.1),
    inner.Adam(0.1, eps=0.1),
    inner.AdamW(0.1, eps=0.1, weight_decay=0.1),
    inner.RMSProp(0.1, eps=0.1),
    inner.MetaSGD(0.1),
    inner.LearnedRate(SGD),
    inner.LearnedRate(SGD, per="tensor", num_steps=2),
    inner.LearnedRate(SGD, per="parameter", num_steps=3),
    inner.LearnedRate(RandomMask(0.1)),
    inner.Learned(inner.Adam(0.1, eps=0.1), ("lr", "betas", "eps")),
    inner.Learned(inner.Momentum(0.1, dampening=0.3), ("momentum", "dampening")),
    inner.Learned(inner.AdamW(0.1, eps=0.1), ("lr", "weight_decay"), space="log", per="tensor"),
    inner.Learned(inner.LearnedRate(inner.Adam(0.1, eps=0.1)), "rule.betas", space="logit"),
    inner.LearnedRate(inner.Learned(inner.Nesterov(0.1), "momentum"), "tensor"),
    inner.WeightDecay(inner.Momentum(0.1), 0.1),
    inner.LearnedRate(inner.WeightDecay(inner.LSTM(0.1), 0.1)),
    inner.Scheduled(inner.AdamW(0.1, eps=0.1), inner.WarmUp(2, inner.Cosine(3, final=0.1))),
    inner.Learned(
        inner.Scheduled(inner.SGD(0.1), inner.WarmUp(1.5, inner.Cosine(3, final=0.1))),
        ("rule.lr", "schedule.num_steps", "schedule.then.num_steps", "schedule.then.final"),
        space="log",
    ),
    inner.Groups({"*bias": inner.Momentum(0.1, dampening=0.3), "*": inner.SGD(0.1)}),
    inner.Groups({"*bias": inner.LearnedRate(RandomMask(0.1)), "*": inner.KroneckerLinear(0.1)}),
    inner.Clipped(inner.LearnedRate(inner.Groups({"*": inner.LSTM(0.1)}), "tensor"), norm=0.2),
    inner.Clipped(SGD, value=0.1),
    inner.Clipped(inner.MetaSGD(0.1), norm=0.2),
    inner.LearnedRate(inner.Clipped(SGD, norm=0.2)),
    RandomMask(0.1),
    inner.Masked(SGD, hard=False),
    inner.Masked(inner.MetaSGD(0.1), temperature=2.0, hard=False),
    inner.LSTM(0.1),
    inner.LSTM(0.01, hidden_size=3, forget_bias=4.0, gate_range=0.3),
    inner.Turtle(hidden=(), lr=0.1),
    inner.Turtle(lr=0.01),
    inner.Turtle(EVERYTHING, hidden=(7, 5), activation="tanh", lr=0.1),
    inner.Turtle(
        EVERYTHING, hidden=(5,), activation="tanh", lr=0.1, loss_as_value=True, applied_updates=True
    ),
    inner.LearnedRate(
        inner.Turtle(("grad", "step"), hidden=(4,), activation="sigmoid", lr=0.1), "parameter"
    ),
    inner.Masked(inner.LearnedRate(inner.Turtle(hidden=(3,), lr=0.1)), hard=False),
    inner.KroneckerLinear(0.1),
    inner.KroneckerLinear(0.1, bias=True),
    inner.KroneckerNetwork(0.1),
    inner.KroneckerNetwork(0.1, num_layers=3, activation="tanh", normalise=True),
    inner.KroneckerNetwork(0.1, activation="identity"),
    inner.KroneckerRNN(0.1),
    inner.LinearOptimizer(0.1),
    inner.LowRank(0.1, rank=2),
    inner.LowRank(0.1, rank=2, identity=True),
    inner.MetaCurvature(0.1),
    inner.SelfAdapting(inner.KroneckerLinear(0.1, bias=True), lr=0.1),
    inner.SelfAdapting(inner.LinearOptimizer(0.1), lr=0.1),
    inner.SelfAdapting(inner.KroneckerRNN(0.1), lr=0.1),
    inner.SelfAdapting(
        inner.Groups({"*bias": inner.MetaSGD(0.1), "*": inner.LowRank(0.1, rank=2)}), lr=0.1
    ),
    inner.SelfAdapting(inner.KroneckerNetwork(0.1, activation="tanh", normalise=True), lr=0.1),
    inner.SelfAdapting(
        inner.LearnedRate(inner.Learned(inner.Momentum(0.1), "momentum"), "tensor"), lr=0.01
    ),
]


TRACED = {type(rule): rule for rule in reversed(RULES)}
"""The first rule of every kind: tracing takes longer than all other checks."""


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_contract(rule):
    testing.check_update_rule(rule, compile=rule is TRACED[type(rule)])


@pytest.mark.parametrize(
    ("rule", "surrogate"),
    [
        (inner.Masked(SGD), ["mask"]),
        (
            inner.LearnedRate(inner.Masked(inner.MetaSGD(0.1), temperature=0.5), "tensor"),
            ["rule.mask"],
        ),
    ],
    ids=str,
)
def test_contract_of_straight_through_rules(rule, surrogate):
    testing.check_update_rule(rule, surrogate=surrogate, compile=isinstance(rule, inner.Masked))


@pytest.mark.inductor
@pytest.mark.parametrize(
    "rule",
    [
        inner.Adam(0.1),
        inner.Learned(inner.Nesterov(0.1), "momentum"),
        inner.Scheduled(inner.AdamW(0.1), inner.WarmUp(2, inner.Cosine(3))),
        inner.LSTM(0.1, hidden_size=3),
        inner.LearnedRate(inner.Turtle(EVERYTHING, hidden=(4,), lr=0.1), "parameter"),
        inner.Masked(SGD),
        inner.SelfAdapting(inner.KroneckerNetwork(0.1, normalise=True), lr=0.1),
        inner.MetaCurvature(0.1),
    ],
    ids=str,
)
def test_compiled_by_inductor(rule):
    eager, compiled = (
        sine_learner(rule, compile=how).estimate(sine_episodes(), keys()).gradient
        for how in (False, True)
    )
    assert relative_difference(compiled, eager) < 1e-9
