"""Batches of episodes that torch's DataLoader puts together give what tensors stacked by hand
give."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader

import metalearn
from metalearn import functional, inner, models, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference, sine_episodes, sine_learner, task

TASKS = 4


def loader(stacked=None):
    """A loader of one batch, whose empty tuples have become lists."""
    stacked = stacked or sine_episodes(TASKS)
    return DataLoader([task(stacked, index) for index in range(TASKS)], batch_size=TASKS)


def loss_and_gradient(learner, episodes):
    loss = learner(episodes, keys=keys(TASKS))
    loss.sum().backward()
    return [loss.detach(), *(param.grad for param in learner.parameters())]


@pytest.mark.parametrize(
    "options", [{}, {"batching": "loop"}, {"support_batches": 5}, {"estimator": outer.Stepwise()}]
)
def test_loss_and_gradient(options):
    collated = next(iter(loader()))
    assert collated.support.weight == []
    by_hand = loss_and_gradient(sine_learner(**options), sine_episodes(TASKS))
    assert relative_difference(loss_and_gradient(sine_learner(**options), collated), by_hand) == 0


def test_replicas():
    replicas = [outer.Replicas([sine_learner(), sine_learner()]) for _ in range(2)]
    by_hand = loss_and_gradient(replicas[0], sine_episodes(TASKS))
    assert relative_difference(loss_and_gradient(replicas[1], next(iter(loader()))), by_hand) == 0


@pytest.mark.parametrize("source", ["support", "transductive"])
def test_normalised_classes(source):
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.rand(TASKS, 6, 3, generator=generator), torch.arange(6).expand(TASKS, 6) % 2
    )
    stacked = Episode(batch, batch)

    def learner():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        model = models.use_batch_statistics(model, source)
        return outer.MAML(model, functional.cross_entropy, inner.SGD(0.1), num_steps=1)

    collated = next(iter(loader(stacked)))
    by_hand = loss_and_gradient(learner(), stacked)
    assert relative_difference(loss_and_gradient(learner(), collated), by_hand) == 0


def test_without_targets():
    x = sine_episodes(TASKS).support.x
    stacked = Episode(Batch(x), Batch(x))
    learner = outer.MAML(
        nn.Linear(1, 1).double(), lambda output: output.square().mean(), inner.SGD(0.1), num_steps=1
    )
    assert learner(next(iter(loader(stacked)))) == learner(stacked)


def test_adaptation():
    collated, stacked = next(iter(loader())), sine_episodes(TASKS)
    adapted, by_hand = (
        sine_learner().adapt(episodes.support, 2) for episodes in (collated, stacked)
    )
    assert relative_difference(adapted.params, by_hand.params) == 0
    assert torch.equal(adapted.loss(collated.query), by_hand.loss(stacked.query))
    assert torch.equal(adapted(collated.query), by_hand(stacked.query))
    assert torch.equal(adapted[0](stacked.query.x[0]), by_hand[0](stacked.query.x[0]))


@pytest.mark.parametrize("ensemble", [False, True])
def test_evaluation(ensemble):
    learner = [sine_learner(), sine_learner()] if ensemble else sine_learner()
    metrics = {"mae": F.l1_loss}
    collated, by_hand = (
        metalearn.evaluate(learner, episodes, num_tasks=TASKS, metrics=metrics)
        for episodes in (loader(), [sine_episodes(TASKS)])
    )
    for name in ("loss", "mae"):
        assert torch.equal(collated[name].values, by_hand[name].values)


def test_training():
    def trained(batches):
        learner = sine_learner()
        metalearn.fit(
            learner, batches, torch.optim.SGD(learner.parameters(), 0.1), num_iterations=3
        )
        return learner.state_dict()

    assert relative_difference(trained(loader()), trained([sine_episodes(TASKS)])) == 0
