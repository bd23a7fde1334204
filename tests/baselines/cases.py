"""What tests of heads that are solved for share."""

import torch
import torch.nn as nn

from metalearn._tasks import take
from metalearn._tree import tree_map
from metalearn.types import Batch, Episode


def body_of(num_features):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, num_features), nn.Tanh()).double()


def labelled(seed=0):
    """Return three tasks of three classes, of three support and four query examples each."""
    generator = torch.Generator().manual_seed(seed)

    def batch(count):
        labels = torch.arange(3).repeat_interleave(count).expand(3, -1)
        x = torch.randn(3, 3 * count, 5, generator=generator, dtype=torch.float64)
        return Batch(x + labels[..., None], labels)

    return Episode(batch(3), batch(4))


def padding_of(batch, count):
    """Return a batch with so many examples more, of weight zero."""
    num_tasks, num_examples = batch.y.shape[:2]
    weight = torch.ones(num_tasks, num_examples + count).double()
    weight[:, num_examples:] = 0
    x, y = tree_map(lambda leaf: torch.cat([leaf, 0 * leaf[:, :count] + 2], 1), (batch.x, batch.y))
    return Batch(x, y, weight)


def padded(episodes, count=2):
    return Episode(*(padding_of(batch, count) for batch in episodes))


def values(learner, episodes):
    """Return a learner's loss and its gradients by name."""
    learner.zero_grad()
    loss = learner(episodes)
    loss.backward()
    return loss.detach(), {name: param.grad.clone() for name, param in learner.named_parameters()}


def by_autograd(learner, episodes, loss_of):
    """Return the mean of a loss over tasks, and its gradients by name."""
    loss = torch.stack([loss_of(take(episodes, index)) for index in range(3)]).mean()
    named = dict(learner.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()))
    return loss.detach(), dict(zip(named, grads, strict=True))


def assert_close(found, expected):
    """Compare losses and gradients, some of which are zero but for rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
