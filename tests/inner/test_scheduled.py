import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, outer, testing
from metalearn._tasks import take
from tests.cases import WithSchedule, assert_equals_torch, relative_difference, sine_learner


def halved(step):
    return 0.5**step


@dataclass(frozen=True)
class Rational:
    """A schedule as a user writes it."""

    scale: float = 2.0

    def __call__(self, step):
        return (1 + step / self.scale) ** -0.5


def warm(step):
    """Warm up for two steps, then go down half a cosine in three to a tenth."""
    return min(1, (step + 1) / 2) * cosine(max(0, step - 2))


def cosine(step):
    return 0.1 + 0.9 * (1 + math.cos(math.pi * min(1, step / 3))) / 2


WARM = inner.WarmUp(2, inner.Cosine(3, final=0.1))
PAIRS = [
    (inner.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1), halved, halved),
    (inner.Momentum(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, 0.8), WARM, warm),
    (inner.RMSProp(0.05), lambda p: torch.optim.RMSprop(p, 0.05), inner.Cosine(3, 0.1), cosine),
    (inner.Adam(0.05), lambda p: torch.optim.Adam(p, 0.05), Rational(), Rational()),
    (
        inner.AdamW(0.05, weight_decay=0.7),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.7),
        WARM,
        warm,
    ),
    (
        inner.WeightDecay(inner.Adam(0.05), 0.05 * 0.7),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.7),
        WARM,
        warm,
    ),
]


@pytest.mark.parametrize(("rule", "optimizer", "schedule", "factor"), PAIRS)
def test_equals_torch_step_by_step(rule, optimizer, schedule, factor, episodes):
    for scheduled in (
        inner.Scheduled(rule, schedule),
        inner.LearnedRate(inner.Scheduled(rule, schedule)),
    ):
        assert_equals_torch(scheduled, lambda p: WithSchedule(optimizer(p), factor), episodes)


@pytest.mark.parametrize(("dtype", "count"), [(torch.float64, 3), (torch.bfloat16, 300)])
def test_the_count_goes_on_with_the_state(dtype, count):
    rule, params = inner.Scheduled(inner.SGD(1.0), Rational()), {"w": torch.zeros(1, dtype=dtype)}
    state, grads, loss = rule.init_state({}, params, torch.tensor(0)), {"w": -params["w"] - 1}, 0.0
    for _ in range(count + 1):
        updates, state = rule.update({}, grads, state, params, torch.tensor(loss), 0)
    assert updates["w"].dtype == dtype
    torch.testing.assert_close(updates["w"].item(), (1 + count / 2) ** -0.5, rtol=0.01, atol=0)


@pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.Stepwise()], ids=str)
def test_windows_of_one_run_equal_torch(estimator, episodes):
    rule = inner.Scheduled(
        inner.Groups(
            {
                "*bias": inner.Momentum(0.05, dampening=0.3),
                "*": inner.Learned(inner.AdamW(0.05), ("lr", "weight_decay"), "log", "tensor"),
            }
        ),
        WARM,
    )
    learner = sine_learner(
        rule, num_steps=2, learn_init=False, estimator=outer.Continued(estimator)
    )
    model, support = sine_learner().model, take(episodes.support, 0)
    parts = ([p for p in model.parameters() if p.dim() == n] for n in (1, 2))
    made = torch.optim.SGD(next(parts), 0.05, 0.9, 0.3), torch.optim.AdamW(next(parts), 0.05)
    optimizers = [WithSchedule(optimizer, warm) for optimizer in made]
    for _ in range(3):
        learner(episodes).backward()
        for _ in range(learner.num_steps):
            model.zero_grad()
            F.mse_loss(model(support.x), support.y).backward()
            for optimizer in optimizers:
                optimizer.step()
        ours = learner.inner_models[0].state_dict()
        assert relative_difference(ours, model.state_dict()) < 1e-12


def test_the_numbers_of_a_users_schedule_can_be_learned(episodes):
    rule = inner.Scheduled(inner.SGD(0.05), Rational())
    learned = inner.Learned(rule, "schedule.scale", space="log")
    testing.check_update_rule(learned, compile=False)
    learner = sine_learner(learned)
    assert [name for name, _ in learner.rule.named_parameters()] == ["schedule.scale"]
    learner(episodes).backward()
    assert learner.rule.schedule.scale.grad != 0


BAD = [
    (
        lambda: inner.Scheduled(inner.SGD(0.1), 0.5),
        TypeError,
        "Scheduled's schedule must be a function of the step, a tensor of any shape; got 0.5. "
        "Write WarmUp(100), say.",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), inner.WarmUp),
        TypeError,
        "Write WarmUp(100), say.",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), lambda step: 1.0 if step < 3 else 0.1),
        ValueError,
        "Write lambda step: torch.where(step < 100, 1.0, 0.1), say, without if, max and math.",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), lambda step: math.cos(step)),
        ValueError,
        "must be a function of the step, a tensor of any shape",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), lambda step: 0.5),
        ValueError,
        "must return a floating tensor of the step's shape; got 0.5 for steps of shape (2,)",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), lambda step: step < 3),
        ValueError,
        "must return a floating tensor",
    ),
    (
        lambda: inner.Scheduled(inner.SGD(0.1), lambda step: (step + 1) / (step + 1).max()),
        ValueError,
        "must act on each element of a tensor; got [0.5, 1.0] for steps 0 and 1 at once, "
        "[1.0, 1.0] one by one.",
    ),
    (lambda: inner.Scheduled(halved, halved), TypeError, "Scheduled(SGD(lr=0.01), ...)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
