import copy

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, outer
from tests.cases import (
    RandomMask,
    WithSchedule,
    assert_equals_torch,
    relative_difference,
    sine_learner,
)


def groups_of(params, *options):
    """Return `torch.optim` groups: biases first, then the rest."""
    params = list(params)
    parts = [[p for p in params if p.dim() == 1], [p for p in params if p.dim() > 1]]
    return [{"params": part, **of} for part, of in zip(parts, options, strict=True)]


def adamw(params):
    return torch.optim.AdamW(
        groups_of(params, {"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.05, "weight_decay": 0.7})
    )


RULE = inner.Groups({"*bias": inner.Adam(0.1), "*": inner.AdamW(0.05, weight_decay=0.7)})


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (RULE, adamw),
        (
            inner.Scheduled(RULE, inner.WarmUp(3)),
            lambda p: WithSchedule(adamw(p), lambda step: min(1, (step + 1) / 3)),
        ),
        (inner.LearnedRate(RULE, "tensor"), adamw),
        (
            inner.Groups(
                {
                    "*bias": inner.Learned(inner.Adam(0.1), "lr"),
                    "*": inner.Learned(
                        inner.AdamW(0.05, weight_decay=0.7), ("lr", "weight_decay"), "log", "tensor"
                    ),
                }
            ),
            adamw,
        ),
        (
            inner.Groups(
                {
                    "*bias": inner.Scheduled(inner.SGD(0.1), lambda step: 0.5**step),
                    "*weight": inner.Momentum(0.05, 0.8, dampening=0.3),
                }
            ),
            lambda p: WithSchedule(
                torch.optim.SGD(
                    groups_of(p, {"lr": 0.1}, {"lr": 0.05, "momentum": 0.8, "dampening": 0.3})
                ),
                [lambda step: 0.5**step, lambda step: 1.0],
            ),
        ),
    ],
    ids=["groups", "scheduled", "learned rates", "learned inside", "schedules inside"],
)
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    assert_equals_torch(rule, optimizer, episodes)


def test_the_first_pattern_wins(episodes):
    rule = inner.Groups({"2.bias": inner.SGD(0.3), "model.2": inner.SGD(0.2), "*": inner.SGD(0.1)})
    learner, plain = sine_learner(rule, num_steps=1), sine_learner(inner.SGD(1.0), num_steps=1)
    start = learner.meta.init
    ours, theirs = (each.adapt(episodes.support).params for each in (learner, plain))
    rates = {"2.bias": 0.3, "2.weight": 0.2}
    for name, param in start.items():
        expected = rates.get(name, 0.1) * (theirs[name] - param)
        torch.testing.assert_close(ours[name] - param, expected)


def test_a_rule_sees_its_group_alone(episodes):
    everything = inner.Clipped(inner.SGD(0.1), norm=0.2)
    kept = inner.Groups({"4": inner.SGD(1e-12), "*": everything})
    body = sine_learner(everything, fast=["0", "2"])
    ours, theirs = (
        learner.adapt(episodes.support).params for learner in (sine_learner(kept), body)
    )
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-9)


def test_meta_parameters_are_by_number_and_matrices_of_a_group():
    rule = inner.Groups({"*bias": inner.MetaSGD(0.1), "*": inner.KroneckerLinear(0.1)})
    names = [name for name, _ in sine_learner(rule).rule.named_parameters()]
    assert names[0] == "0.rate.0.bias"
    assert {name.split(".")[0] for name in names} == {"0", "1"}
    assert sum(name.endswith("L") for name in names) == 3


def test_groups_draw_numbers_of_their_own():
    rule = inner.Groups({"a": RandomMask(0.1), "b": RandomMask(0.1)})
    params = {"a": torch.zeros(5), "b": torch.zeros(5)}
    first, second = rule.init_state(rule.init_meta(params), params, torch.tensor(3))
    assert (first["a"] != second["b"]).all()


def test_a_tied_parameter_has_the_first_of_its_names():
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(2)))
    model[1].weight = model[0].weight
    first, second = (
        inner.Groups({f"{layer}.weight": inner.SGD(0.5), "*": inner.SGD(0.1)}) for layer in (0, 1)
    )
    outer.MAML(model, F.mse_loss, first, num_steps=1)
    with pytest.raises(ValueError, match=r"none for '1\.weight'"):
        outer.MAML(model, F.mse_loss, second, num_steps=1)


def test_pairs_of_its_own_make_it_again():
    assert inner.Groups(RULE.rules) == RULE
    assert inner.Groups(dict(reversed(RULE.rules))) != RULE
    assert hash(RULE) == hash(copy.deepcopy(RULE))


def test_as_an_optimizer_with_its_state_saved():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    rule, other = inner.Scheduled(RULE, inner.WarmUp(5)), copy.deepcopy(module.double())
    theirs = WithSchedule(adamw(other.parameters()), lambda step: min(1, (step + 1) / 5))
    state, x = None, torch.randn(6, 3).double()
    for _ in range(3):
        ours = inner.as_optimizer(rule, ({}, {}), module.named_parameters())
        if state is not None:
            ours.load_state_dict(copy.deepcopy(state))
        for _ in range(2):
            for each, optimizer in ((module, ours), (other, theirs)):
                optimizer.zero_grad()
                F.mse_loss(each(x), x[:, :1]).backward()
                optimizer.step()
        state = ours.state_dict()
    assert relative_difference(module.state_dict(), other.state_dict()) < 1e-12


PARAMS = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}
SGD = inner.SGD(0.1)
BAD = [
    (lambda: inner.Groups(SGD), TypeError, "Groups' rules must be a dict of rules by pattern"),
    (lambda: inner.Groups({0: SGD}), TypeError, 'Write Groups({"*bias": Adam(1e-3)'),
    (lambda: inner.Groups({}), ValueError, "Groups' rules must be at least one; got none."),
    (
        lambda: inner.Groups({"*bias": 0.1}),
        TypeError,
        "Groups' rule of '*bias' must be an update rule; got 0.1. Pass SGD(lr=0.01), say.",
    ),
    (
        lambda: inner.Groups({"*": inner.SelfAdapting(inner.MetaSGD(0.1), 0.1)}),
        ValueError,
        "Write SelfAdapting(Groups(...), ...).",
    ),
    (
        lambda: inner.Groups({"*bias": SGD}).init_meta(PARAMS),
        ValueError,
        "Groups must have a rule for every parameter; got none for ['0.weight']. "
        'Add "*": SGD(lr=0.01), say, at the end.',
    ),
    (
        lambda: inner.Groups({"0.bais": SGD, "*": SGD}).init_meta(PARAMS),
        ValueError,
        "must have parameters of its own; got none for '0.bais' of ['0.weight', '0.bias']. "
        "Did you mean '0.bias'?",
    ),
    (
        lambda: inner.Groups({"*": SGD, "*bias": SGD}).init_meta(PARAMS),
        ValueError,
        "Put it first, or leave it out.",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
