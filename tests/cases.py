"""Small problems, rules and estimators that several test modules share."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_leaves
from metalearn.types import Batch, Episode

EXACT_WAYS = [
    {},
    {"batching": "loop"},
    {"chunk_size": 2},
    {"estimator": outer.Stepwise()},
    {"estimator": outer.Stepwise(segment=2), "chunk_size": 1},
    {"estimator": outer.Stepwise(), "batching": "loop"},
    {"estimator": outer.ClipPerTask(outer.Unrolled(), 1e9)},
    {"compile": {"backend": "eager"}},
]
"""Options of learners that compute the exact gradient, each in another way."""


@dataclass(frozen=True)
class RandomMask(inner.UpdateRule):
    """Gradient descent on rows that a relaxed random mask, drawn from the task's key, lets
    through."""

    lr: float

    def init_meta(self, params):
        return {
            "logits": {name: param.new_zeros(param.shape[:1]) for name, param in params.items()}
        }

    def init_state(self, meta, params, key):
        return {
            name: torch.sigmoid(
                logits + functional.uniform(key, logits.shape, stream, dtype=logits.dtype).logit()
            )
            for stream, (name, logits) in enumerate(meta["logits"].items())
        }

    def update(self, meta, grads, state, params, loss, step):
        masks = {
            name: mask.reshape(-1, *[1] * (grads[name].dim() - 1)) for name, mask in state.items()
        }
        return {name: -self.lr * masks[name] * grad for name, grad in grads.items()}, state


def sine_episodes(num_tasks=3, k_shot=5, num_query=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = 10 * torch.rand(num_tasks, k_shot + num_query, 1, generator=generator, dtype=dtype) - 5
    amplitude, phase = torch.rand(2, num_tasks, 1, 1, generator=generator, dtype=dtype)
    y = 5 * amplitude * torch.sin(x - 3 * phase)
    return Episode(Batch(x[:, :k_shot], y[:, :k_shot]), Batch(x[:, k_shot:], y[:, k_shot:]))


def sine_learner(rule=None, **options):
    torch.manual_seed(0)
    model = models.mlp(1, [6, 6], 1).double()
    return outer.MetaLearner(
        model, F.mse_loss, rule or inner.SGD(lr=0.01), **{"num_steps": 3, **options}
    )


def keys(num_tasks=3):
    return torch.arange(num_tasks) + 2**40


def relative_difference(left, right):
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return max(float((a - b).norm() / (b.norm() + 1e-12)) for a, b in pairs)


def task(episodes, index=0):
    return take(episodes, index)


def assert_equals_torch(rule, optimizer, episodes):
    """Compare a rule's adapted parameters with those of a `torch.optim` optimizer after one to five
    steps."""
    support = take(episodes.support, 0)
    for num_steps in range(1, 6):
        adapted = sine_learner(rule).adapt(take(episodes.support, slice(0, 1)), num_steps)
        model = sine_learner().model
        theirs = optimizer(model.parameters())
        for _ in range(num_steps):
            theirs.zero_grad()
            F.mse_loss(model(support.x), support.y).backward()
            theirs.step()
        for name, param in model.named_parameters():
            torch.testing.assert_close(
                adapted.params[name][0], param.detach(), rtol=1e-10, atol=1e-12
            )


class WithSchedule:
    """A `torch.optim` optimizer whose rate is multiplied by a function of the step, by
    `LambdaLR`."""

    def __init__(self, optimizer, factor):
        self.optimizer = optimizer
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        self.zero_grad = optimizer.zero_grad

    def step(self):
        self.optimizer.step()
        self.scheduler.step()


def assert_finite_at_dead_units(rule, episodes):
    """Take a second-order meta-gradient where most gradients are zero."""
    learner = sine_learner(rule)
    with torch.no_grad():
        learner.model[0].bias.fill_(-1e3)
    gradient = learner.estimate(episodes).gradient
    assert all(leaf.isfinite().all() for leaf in tree_leaves(gradient))
