"""What the tests share."""

import copy

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn._tree import tree_leaves, tree_map
from tests.cases import keys, relative_difference, sine_episodes

SGD = inner.SGD(0.01)


def learner(model=None, criterion=F.mse_loss, rule=SGD, **options):
    return outer.MetaLearner(
        model or models.mlp(1, [4], 1).double(), criterion, rule, **{"num_steps": 2} | options
    )


def assert_refused(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def windows(count, num_tasks=3):
    """Return episodes of which each has other examples."""
    made = []
    for index in range(count):
        episodes = sine_episodes(num_tasks)
        made.append(tree_map(lambda leaf, index=index: leaf + 0.1 * index, episodes))
    return made


def train(learner, episodes_of_windows):
    """Return every window's mean loss and gradient, without an update of what is learned."""
    results = []
    for number, episodes in enumerate(episodes_of_windows):
        learner.zero_grad()
        loss = learner(episodes, keys=keys() + 100 * number)
        loss.backward()
        grads = [
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone()
            for leaf in tree_leaves(learner.meta)
        ]
        results.append((loss.detach(), grads))
    return results


def assert_same(results, expected):
    for (loss, grads), (wanted, gradients) in zip(results, expected, strict=True):
        torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=0)
        assert relative_difference(grads, gradients) < 1e-9


def assert_reading_leaves_the_carry(learner, episodes):
    """Call a learner in all ways that do not train it."""
    before = copy.deepcopy(learner.carry.state_dict())
    learner.estimate(episodes, keys())
    learner.adapt(episodes.support)
    with torch.no_grad():
        learner(episodes)
    learner.eval()
    learner(episodes)
    after = learner.carry.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
