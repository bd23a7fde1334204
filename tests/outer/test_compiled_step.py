"""A compiled training iteration does what the four lines of a training loop do."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn.outer import _compiled_step
from tests.cases import relative_difference, sine_episodes
from tests.outer.cases import assert_refused

OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, 0.01),
    "momentum": lambda params: torch.optim.SGD(params, 0.01, momentum=0.9, weight_decay=0.1),
    "Nesterov": lambda params: torch.optim.SGD(params, 0.01, momentum=0.9, nesterov=True),
    "Adam": lambda params: torch.optim.Adam(params, 0.01),
    "Adam with decay": lambda params: torch.optim.Adam(params, 0.01, weight_decay=0.1),
    "AdamW": lambda params: torch.optim.AdamW(params, 0.01, betas=(0.8, 0.95), eps=1e-6),
    "fused Adam": lambda params: torch.optim.Adam(params, 0.01, fused=True),
}
KEYS = functional.draw_keys(3, generator=torch.Generator().manual_seed(1))

pytestmark = pytest.mark.usefixtures("steps_as_they_are")


def build(seed=0, **options):
    torch.manual_seed(seed)
    options = {"num_steps": 2, "rule": inner.MetaSGD(0.01), **options}
    return outer.MetaLearner(models.mlp(1, [6], 1).double(), F.mse_loss, **options)


def by_hand(learner, optimizer, max_grad_norm=None, episodes=None):
    optimizer.zero_grad()
    loss = learner(sine_episodes() if episodes is None else episodes, keys=KEYS)
    loss.sum().backward()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(learner.parameters(), max_grad_norm)
    optimizer.step()
    return loss.detach()


def assert_same(ours, theirs, optimizer, other):
    close = {"rtol": 1e-10, "atol": 1e-14}
    torch.testing.assert_close([*ours.parameters()], [*theirs.parameters()], **close)
    states, expected = optimizer.state_dict()["state"], other.state_dict()["state"]
    for index, state in expected.items():
        for name, value in state.items():
            if value is not None:
                torch.testing.assert_close(states[index][name], value, **close)


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_the_separate_step(name, max_grad_norm):
    ours, theirs = build(), build()
    optimizer, other = (OPTIMIZERS[name](each.parameters()) for each in (ours, theirs))
    step = ours.compiled_step(optimizer, max_grad_norm)
    for _ in range(3):
        loss = step(sine_episodes(), keys=KEYS)
        expected = by_hand(theirs, other, max_grad_norm)
        torch.testing.assert_close(loss, expected)
        assert_same(ours, theirs, optimizer, other)
    assert not loss.requires_grad
    assert all(param.grad is None for param in ours.parameters())
    assert ours.diagnostics["finite"].all()


def test_several_groups_schedules_and_states_are_the_optimizers_own():
    pairs = []
    for _ in range(2):
        learner = build()
        first, *rest = learner.parameters()
        groups = [{"params": [first], "lr": 0.1}, {"params": rest, "weight_decay": 0.3}]
        optimizer = torch.optim.Adam(groups, 0.01)
        pairs.append((learner, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)))
    (ours, optimizer, schedule), (theirs, other, its_schedule) = pairs
    step = ours.compiled_step(optimizer)
    for round in range(4):
        step(sine_episodes(), keys=KEYS)
        schedule.step()  # which would warn of an optimizer that has taken no step
        by_hand(theirs, other)
        its_schedule.step()
        assert_same(ours, theirs, optimizer, other)
        if round == 1:  # from a checkpoint
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if round == 2:  # and by hand again
            for each, its in ((ours, optimizer), (theirs, other)):
                by_hand(each, its)
    optimizer.param_groups[0]["betas"] = other.param_groups[0]["betas"] = (0.5, 0.5)
    step(sine_episodes(), keys=KEYS)
    by_hand(theirs, other)
    assert_same(ours, theirs, optimizer, other)


def test_numbers_that_change_compile_nothing(monkeypatch):
    learner = build()
    optimizer = torch.optim.AdamW(learner.parameters(), 0.01)
    step = learner.compiled_step(optimizer)
    step(sine_episodes())
    monkeypatch.setattr(_compiled_step, "CapturedStep", None)
    optimizer.param_groups[0].update(lr=0.1, betas=(0.1, 0.2), weight_decay=0.3, eps=0.1)
    step(sine_episodes())


def test_a_frozen_parameter_stays():
    ours, theirs = build(), build()
    optimizer, other = (OPTIMIZERS["Adam"](each.parameters()) for each in (ours, theirs))
    step = ours.compiled_step(optimizer)
    for frozen in (False, True, False):
        for each in (ours, theirs):
            each.model[0].weight.requires_grad_(not frozen)
        before = ours.model[0].weight.clone()
        step(sine_episodes(), keys=KEYS)
        by_hand(theirs, other)
        assert_same(ours, theirs, optimizer, other)
        assert torch.equal(before, ours.model[0].weight) == frozen


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_replicas(max_grad_norm):
    def replicas():
        return outer.Replicas([build(seed, rule=inner.SGD(0.01)) for seed in range(3)])

    ours, theirs = replicas(), replicas()
    optimizer, other = (OPTIMIZERS["Adam"](each.parameters()) for each in (ours, theirs))
    step = ours.compiled_step(optimizer, max_grad_norm)
    for _ in range(2):
        losses = step(sine_episodes(), keys=KEYS)
        other.zero_grad()
        expected = theirs(sine_episodes(), keys=KEYS)
        expected.sum().backward()
        if max_grad_norm is not None:
            theirs.clip_grad_norm_(max_grad_norm)
        other.step()
        torch.testing.assert_close(losses, expected.detach())
        assert_same(ours, theirs, optimizer, other)


def test_what_is_carried_goes_on():
    ours, theirs = (build(estimator=outer.Unrolled(multi_step=outer.MultiStep(4))) for _ in "ab")
    optimizer, other = (OPTIMIZERS["SGD"](each.parameters()) for each in (ours, theirs))
    step = ours.compiled_step(optimizer)
    for _ in range(3):
        step(sine_episodes(), keys=KEYS)
        by_hand(theirs, other)
        assert_same(ours, theirs, optimizer, other)
    assert relative_difference([*ours.carry.buffers()], [*theirs.carry.buffers()]) == 0
    assert len([*ours.carry.buffers()]) == 1


def test_other_tasks_have_plans_of_their_own():
    ours, theirs = build(), build()
    optimizer, other = (OPTIMIZERS["SGD"](each.parameters()) for each in (ours, theirs))
    step = ours.compiled_step(optimizer)
    for num_tasks in (3, 1, 3):
        episodes, keys = sine_episodes(num_tasks), torch.arange(num_tasks)
        step(episodes, keys=keys)
        other.zero_grad()
        theirs(episodes, keys=keys).backward()
        other.step()
        assert_same(ours, theirs, optimizer, other)


@pytest.mark.parametrize("how", ["clear", "of one parameter", "load"])
def test_states_that_are_replaced_are_the_optimizers(how):
    pairs = []
    for _ in range(2):
        learner = build()
        pairs.append((learner, OPTIMIZERS["Adam"](learner.parameters())))
    (ours, optimizer), (theirs, other) = pairs
    step = ours.compiled_step(optimizer)
    for round in range(3):
        step(sine_episodes(), keys=KEYS)
        by_hand(theirs, other)
        assert_same(ours, theirs, optimizer, other)
        for learner, its in pairs if round < 2 else ():
            if how == "clear":
                its.state.clear()
            elif how == "load":
                its.load_state_dict(copy.deepcopy(its.state_dict()))
            else:
                its.state[next(learner.parameters())] = {}


def test_what_is_learned_twice_is_refused():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, output, y):
            return (self.weight * (output - y) ** 2).mean()

    criterion = Weighted()
    learner = outer.MetaLearner(
        models.mlp(1, [4], 1).double(),
        criterion,
        inner.SGD(0.01),
        num_steps=1,
        support_criterion=criterion,
    )
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    assert_refused(
        lambda: learner.compiled_step(optimizer), ValueError, "hold what is learned once"
    )


def test_hooks_that_come_later_are_refused():
    learner = build()
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    step = learner.compiled_step(optimizer)
    step(sine_episodes())
    optimizer.register_step_post_hook(print)
    assert_refused(lambda: step(sine_episodes()), ValueError, "have no hooks")


def test_inference_mode_is_refused():
    learner = build()
    step = learner.compiled_step(torch.optim.SGD(learner.parameters(), 0.1))
    with torch.inference_mode():
        assert_refused(lambda: step(sine_episodes()), RuntimeError, "Leave the mode")


def test_copies_and_loops():
    learner = build(batching="loop")
    step = learner.compiled_step(torch.optim.SGD(learner.parameters(), 0.1))
    assert_refused(lambda: step(sine_episodes()), ValueError, "got batching='loop'")
    learner.set_batching()
    step(sine_episodes())
    copy.deepcopy(step)(sine_episodes())


def hooked(learner):
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    optimizer.register_step_post_hook(print)
    return optimizer


def hooked_parameter(learner):
    next(learner.parameters()).register_post_accumulate_grad_hook(print)
    return torch.optim.SGD(learner.parameters(), 0.1)


REFUSED = {
    "no optimizer": (lambda learner: learner, TypeError, "be a torch.optim.Optimizer"),
    "another class": (
        lambda learner: torch.optim.RMSprop(learner.parameters()),
        ValueError,
        "SGD, Adam or AdamW of torch.optim; got torch.optim.rmsprop.RMSprop. Write optimizer.zero",
    ),
    "a part of the parameters": (
        lambda learner: torch.optim.SGD([next(learner.parameters())], 0.1),
        ValueError,
        "hold all of the learner's parameters",
    ),
    "another's parameters": (
        lambda learner: torch.optim.SGD([*learner.parameters(), nn.Parameter(torch.ones(2))], 0.1),
        ValueError,
        r"hold the learner's parameters alone; got another, of shape (2,)",
    ),
    "amsgrad": (
        lambda learner: torch.optim.Adam(learner.parameters(), amsgrad=True),
        ValueError,
        "have amsgrad=False",
    ),
    "dampening": (
        lambda learner: torch.optim.SGD(learner.parameters(), 0.1, momentum=0.9, dampening=0.1),
        ValueError,
        "have dampening=0",
    ),
    "a hook on steps": (hooked, ValueError, "have no hooks"),
    "a hook on gradients": (hooked_parameter, ValueError, "have no hooks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    optimizer, error, message = REFUSED[name]
    learner = build()
    assert_refused(lambda: learner.compiled_step(optimizer(learner)), error, message)


def test_refused_at_a_call():
    learner = build(chunk_size=2)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    step = learner.compiled_step(optimizer)
    assert_refused(
        lambda: step(sine_episodes()), ValueError, "be computed at once; got chunk_size=2"
    )
    learner.set_batching()
    step(sine_episodes())
    optimizer.param_groups[0]["maximize"] = True
    assert_refused(lambda: step(sine_episodes()), ValueError, "have maximize=False")


def test_a_model_that_cannot_be_captured_is_refused_with_the_way_on():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if x.sum().item() > 0 else 1)

    learner = outer.MAML(Branching(1, 1), F.mse_loss, inner.SGD(0.01), num_steps=1, batching="loop")
    step = learner.compiled_step(torch.optim.SGD(learner.parameters(), 0.1))
    before = [param.clone() for param in learner.parameters()]
    with pytest.raises(RuntimeError) as caught:
        step(sine_episodes(1, dtype=torch.float32))
    assert "optimizer.step()" in "".join(caught.value.__notes__)
    assert all(map(torch.equal, before, learner.parameters()))
