import copy
import io
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner
from metalearn._tree import tree_detach, tree_leaves, tree_map
from tests.cases import RandomMask, keys, sine_learner, task

RULES = [
    inner.SGD(0.05),
    inner.Adam(0.05),
    inner.MetaSGD(0.05),
    inner.LearnedRate(inner.SGD(0.05), "tensor", num_steps=2),
    inner.Clipped(inner.Momentum(0.05), norm=1.0),
    inner.LSTM(0.05, hidden_size=3),
    inner.LearnedRate(
        inner.Turtle(("grad", "processed_loss", "grad_history", "step"), hidden=(5,), lr=0.01)
    ),
    inner.SelfAdapting(inner.KroneckerLinear(0.05), lr=0.05),
    inner.Masked(inner.SGD(0.05)),
    RandomMask(0.05),
]


def trained(rule):
    learner = sine_learner(rule)
    with torch.no_grad():
        for param in learner.rule.parameters():
            param.add_(0.05 * torch.randn_like(param))
    return learner


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_equals_adapt_step_by_step(rule, episodes):
    learner, support = trained(rule), task(episodes.support)
    model = copy.deepcopy(learner.model)
    optimizer = inner.as_optimizer(
        rule, learner.meta.rule, model.named_parameters(), key=keys(1)[0]
    )

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(support.x), support.y)
        loss.backward()
        return loss

    for num_steps in range(1, 5):
        optimizer.step(closure)
        adapted = learner.adapt(
            tree_map(lambda leaf: leaf[None], support), num_steps, keys=keys(1)
        ).params
        for name, param in model.named_parameters():
            torch.testing.assert_close(param.detach(), adapted[name][0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "rule", [inner.SelfAdapting(inner.KroneckerLinear(0.05), lr=0.05), inner.Adam(0.05)], ids=str
)
def test_state_does_not_share_memory_with_what_changes_in_place(rule, episodes):
    support, moved = task(episodes.support), []
    for set_to_none in (True, False):
        model = copy.deepcopy(sine_learner(rule).model)
        meta = rule.init_meta(tree_detach(dict(model.named_parameters())))
        optimizer = inner.as_optimizer(rule, meta, model.named_parameters())
        for _ in range(4):
            optimizer.zero_grad(set_to_none=set_to_none)
            F.mse_loss(model(support.x), support.y).backward()
            optimizer.step()
        moved.append([param.detach() for param in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True))


@dataclass(frozen=True)
class HeavyBall(inner.UpdateRule):
    """Momentum by the parameters before the last step, which it keeps."""

    def init_state(self, meta, params, key):
        return dict(params)

    def update(self, meta, grads, state, params, loss, step):
        return {
            name: -0.1 * grad + 0.5 * (params[name] - state[name]) for name, grad in grads.items()
        }, dict(params)


def test_parameters_that_a_rule_keeps_stay_what_they_were():
    ours, x = nn.Linear(2, 1), torch.randn(5, 2)
    theirs = copy.deepcopy(ours)
    momentum = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.5)
    heavy_ball = inner.as_optimizer(HeavyBall(), {}, ours.named_parameters())
    for _ in range(4):
        for model, optimizer in ((ours, heavy_ball), (theirs, momentum)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_constants_stay_constant():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0])
    rule = inner.LSTM(hidden_size=3)
    optimizer = inner.as_optimizer(
        rule, rule.init_meta(dict(model.named_parameters())), model.named_parameters()
    )

    def closure():
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        return loss.item()  # a number does too

    optimizer.step(closure)
    assert torch.equal(model[0].weight, before.weight)


def test_copies_and_pickles():
    model = nn.Linear(1, 1)
    model(torch.ones(1, 1)).sum().backward()
    optimizer = inner.as_optimizer(inner.Adam(0.1), {}, model.named_parameters())
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        copied.step()
        assert copied.state["step"] == 1
    assert optimizer.state["step"] == 0


def test_meta_of_another_dtype_serves():
    model = nn.Linear(1, 1).double()
    rule = inner.Turtle(hidden=(3,))
    optimizer = inner.as_optimizer(
        rule, rule.init_meta({"w": torch.zeros(1)}), model.named_parameters()
    )
    model(torch.ones(1, 1).double()).sum().backward()
    optimizer.step()
    assert model.weight.dtype == torch.float64


def test_order_of_parameters_does_not_matter():
    model = nn.Linear(2, 1)
    rule = inner.MetaSGD(0.1)
    meta = rule.init_meta(tree_detach(dict(model.named_parameters())))
    optimizer = inner.as_optimizer(rule, meta, list(model.named_parameters())[::-1])
    before = model.bias.item()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert model.bias.item() == pytest.approx(before - 0.1)


def test_a_closure_is_needed_where_the_loss_is_used():
    model = nn.Linear(2, 1)
    model(torch.ones(3, 2)).sum().backward()
    kron = inner.SelfAdapting(inner.KroneckerLinear(0.1), lr=0.1)
    for rule, needed in [
        (inner.SGD(0.1), False),
        (inner.Turtle(), False),
        (kron, False),
        (inner.LSTM(), True),
    ]:
        optimizer = inner.as_optimizer(
            rule, rule.init_meta(dict(model.named_parameters())), model.named_parameters()
        )
        if needed:
            with pytest.raises(RuntimeError, match=r"optimizer.step\(closure\)"):
                optimizer.step()
        else:
            optimizer.step()


@dataclass(frozen=True)
class LateLoss(inner.UpdateRule):
    """A rule that takes the loss into account from its second step on."""

    def update(self, meta, grads, state, params, loss, step):
        scale = 1.0 if step == 0 else loss
        return {name: -0.1 * scale * grad for name, grad in grads.items()}, state


def test_a_loss_that_is_used_later_is_asked_for_at_once():
    model = nn.Linear(2, 1)
    optimizer = inner.as_optimizer(LateLoss(), {}, model.named_parameters())
    model(torch.ones(3, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="be given the loss, which it uses"):
        optimizer.step()


def test_a_small_net_serves_another_model():
    rule = inner.Turtle(hidden=(4,))
    meta = rule.init_meta({"w": torch.zeros(3)})
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    before = copy.deepcopy(model.state_dict())
    optimizer = inner.as_optimizer(rule, meta, model.named_parameters())
    model(torch.randn(2, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], param) for name, param in model.named_parameters())


def test_state_survives_state_dict(episodes):
    rule, support = inner.Adam(0.05), task(episodes.support)
    learner = sine_learner(rule)

    def train(model, optimizer, num_steps):
        for _ in range(num_steps):
            optimizer.zero_grad()
            F.mse_loss(model(support.x), support.y).backward()
            optimizer.step()

    model = copy.deepcopy(learner.model)
    optimizer = inner.as_optimizer(rule, {}, model.named_parameters())
    train(model, optimizer, 2)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    train(model, optimizer, 3)

    resumed = copy.deepcopy(learner.model)
    other = inner.as_optimizer(rule, {}, resumed.named_parameters())
    file.seek(0)
    of_model, of_optimizer = torch.load(file, weights_only=True)
    resumed.load_state_dict(of_model)
    other.load_state_dict(of_optimizer)
    train(resumed, other, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True)
    )


def test_groups_and_schedulers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    groups = [
        {"params": model[0].named_parameters(prefix="0")},
        {"params": model[1].named_parameters(prefix="1"), "lr": 0.0},
    ]
    optimizer = inner.as_optimizer(inner.SGD(0.1), {}, groups)
    before = copy.deepcopy(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for factor in (1.0, 0.5):
        start = model[0].weight.detach().clone()
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
        torch.testing.assert_close(
            model[0].weight.detach(), start - 0.1 * factor * model[0].weight.grad
        )
    assert torch.equal(model[1].weight, before[1].weight)


def test_meta_parameters_are_copied():
    model = nn.Linear(1, 1)
    meta = inner.MetaSGD(0.1).init_meta(tree_detach(dict(model.named_parameters())))
    optimizer = inner.as_optimizer(inner.MetaSGD(0.1), meta, model.named_parameters())
    meta["rate"]["weight"].fill_(100.0)
    before = model.weight.item()
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(before - 0.1)


LINEAR = nn.Linear(2, 1)
HISTORY = inner.Turtle(("grad_history",)).init_meta(dict(LINEAR.named_parameters()))
RATES = inner.MetaSGD(0.1).init_meta(dict(LINEAR.named_parameters()))
BAD = [
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), None, LINEAR.named_parameters()),
        TypeError,
        "Pass learner.meta.rule.",
    ),
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), sine_learner().rule, LINEAR.named_parameters()),
        TypeError,
        "be a tree of tensors; got TensorTree",
    ),
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), {}, LINEAR.named_parameters(), key=3),
        TypeError,
        "torch.tensor(7)",
    ),
    (
        lambda: inner.as_optimizer(
            inner.SGD(0.1), {}, [{"params": LINEAR.named_parameters(), "weight_decay": 0.1}]
        ),
        ValueError,
        'have "params" and perhaps "lr"',
    ),
    (
        lambda: inner.as_optimizer(
            inner.SGD(0.1), {}, [{"params": LINEAR.named_parameters(), "lr": "x"}]
        ),
        TypeError,
        "must be a number",
    ),
    (
        lambda: inner.as_optimizer(inner.Adam(0.1), {}, LINEAR.named_parameters()).load_state_dict(
            torch.optim.Adam(LINEAR.parameters()).state_dict()
        ),
        ValueError,
        "state must belong to",
    ),
    (
        lambda: inner.as_optimizer(0.1, {}, LINEAR.named_parameters()),
        TypeError,
        "learner.problem.rule",
    ),
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), {}, LINEAR.parameters()),
        TypeError,
        "module.named_parameters()",
    ),
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), {}, []),
        ValueError,
        "at least one that requires grad",
    ),
    (
        lambda: inner.as_optimizer(
            inner.SGD(0.1),
            {},
            [{"params": LINEAR.named_parameters()}, {"params": nn.Linear(1, 1).named_parameters()}],
        ),
        ValueError,
        "named_parameters(prefix='head')",
    ),
    (
        lambda: inner.as_optimizer(inner.SGD(0.1), {}, LINEAR.named_parameters()).add_param_group(
            {"params": []}
        ),
        RuntimeError,
        "Pass all groups to as_optimizer",
    ),
    (
        lambda: inner.as_optimizer(
            inner.Turtle(("grad_history",)), HISTORY, LINEAR.named_parameters()
        ).load_state_dict(
            inner.as_optimizer(inner.Adam(0.1), {}, LINEAR.named_parameters()).state_dict()
        ),
        ValueError,
        "state must belong to",
    ),
    (
        lambda: inner.as_optimizer(inner.MetaSGD(0.1), RATES, nn.Linear(3, 1).named_parameters()),
        ValueError,
        "got (1, 2) where",
    ),
    (
        lambda: inner.as_optimizer(inner.MetaSGD(0.1), {}, LINEAR.named_parameters()),
        ValueError,
        "under the same names",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_a_loaded_state_is_of_the_parameters_dtype():
    optimizers = []
    for dtype in (torch.float32, torch.float64):
        module = nn.Linear(2, 1).to(dtype)
        optimizers.append(inner.as_optimizer(inner.Adam(0.1), {}, module.named_parameters()))
        module(torch.ones(3, 2, dtype=dtype)).mean().backward()
        optimizers[-1].step()
    single, double = optimizers
    double.load_state_dict(single.state_dict())
    assert {leaf.dtype for leaf in tree_leaves(double.state["rule"])} == {torch.float64}
    double.step()
