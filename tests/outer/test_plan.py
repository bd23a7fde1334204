"""A plan is made once for a kind of call, and anew for whatever may change what it computes."""

import copy
import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn.types import Batch, Carry, Episode
from tests.cases import keys, sine_episodes, sine_learner
from tests.outer.cases import learner


def images(num_tasks=2):
    x = torch.randn(num_tasks, 4, 1, 6, 6, dtype=torch.float64)
    return Episode(*[Batch(x, torch.arange(4 * num_tasks).reshape(num_tasks, 4) % 3)] * 2)


def counted(made):
    """Count a learner's passes through its model."""
    passes = []
    made.model.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_a_known_kind_is_not_tried_again(episodes):
    made = learner(nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.0), nn.Linear(4, 1)).double())
    passes = counted(made)
    numbers = []
    for _ in range(3):
        passes.clear()
        made(episodes)
        numbers.append(len(passes))
    assert numbers[1] == numbers[2] < numbers[0]


CHANGES = {
    "a mode": lambda made: made.eval(),
    "what requires grad": lambda made: made.model[0].bias.requires_grad_(False),
    "a hook": lambda made: made.model[0].register_forward_hook(lambda m, x, y: 2 * y),
    "a layer": lambda made: made.model.__setitem__(1, nn.Tanh()),
    "an attribute of a layer": lambda made: setattr(made.model[1], "negative_slope", 0.5),
    "the number of steps": lambda made: setattr(
        made, "problem", made.problem._replace(num_steps=1)
    ),
    "the estimator": lambda made: setattr(made, "estimator", outer.Unrolled(order=1)),
    "the batching": lambda made: setattr(made, "batching", "loop"),
    "the chunks": lambda made: setattr(made, "chunk_size", 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_counts_at_the_next_call(change, episodes):
    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 4), nn.LeakyReLU(), nn.Linear(4, 1)).double()
        return learner(model)

    used, fresh = build(), build()
    used(episodes, keys=keys())
    for made in (used, fresh):
        change(made)
    assert torch.equal(used(episodes, keys=keys()), fresh(episodes, keys=keys()))
    expected = fresh.estimate(episodes, keys()).gradient.init
    for name, leaf in used.estimate(episodes, keys()).gradient.init.items():
        torch.testing.assert_close(leaf, expected[name], rtol=1e-12, atol=1e-14)


def test_a_pool_of_a_list_counts_when_it_changes():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d([1, 1]), nn.Flatten(), nn.Linear(2, 3)
    ).double()
    made = learner(model, F.cross_entropy)
    made(images())
    model[1].output_size = [2, 2]
    with pytest.raises(Exception, match="mat1 and mat2|cannot be"):
        made(images())


@pytest.mark.parametrize("value", [([1], 2), 3])
def test_other_attributes_of_layers_cost_nothing(value, episodes):
    made = learner()
    made(episodes)
    passes = counted(made)
    made(episodes)
    once = len(passes)
    made.model[0].tag = value
    passes.clear()
    made(episodes)
    assert len(passes) <= once


def test_a_layer_that_its_owner_writes_into_is_clean(episodes):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(1, 4).double(), nn.Linear(4, 1).double()

        def forward(self, x):
            h = self.body(x).tanh()
            self.head.features = h
            return self.head(h)

    made = learner(Net())
    made(episodes)
    assert not hasattr(made.model.head, "features")
    copy.deepcopy(made)


def test_replicas_see_another_estimator(episodes):
    torch.manual_seed(0)
    replicas = outer.Replicas([sine_learner() for _ in range(3)])
    before = replicas.estimate(episodes, keys()).gradient.init["0.weight"]
    replicas.learner.estimator = outer.Unrolled(order=1)
    after = replicas.estimate(episodes, keys()).gradient.init["0.weight"]
    assert not torch.allclose(before, after)


@dataclass(frozen=True)
class OfQueries(outer.Unrolled):
    """An estimator whose carry starts with the query set, and calls a loss for it."""

    def init_carry(self, problem, meta, episode, key):
        loss = problem.query_loss(meta.init, meta.shared, episode)
        return Carry((episode.query.x.mean() + 0 * loss.detach(),))


def test_what_is_carried_is_not_asked_where_nothing_is_carried():
    made, episodes = sine_learner(estimator=OfQueries()), sine_episodes()
    assert len(made.adapt(episodes.support)) == 3
    with torch.no_grad():
        made(episodes)
    made(episodes).backward()
    assert made.carry.value.common[0].shape == ()


def test_a_loaded_carry_is_never_ignored(episodes):
    counting = sine_learner(estimator=outer.Unrolled(multi_step=outer.MultiStep(10)))
    counting(episodes)
    plain = sine_learner()
    plain(episodes)
    plain.carry.load_state_dict(counting.carry.state_dict())
    with pytest.raises(ValueError, match="learner's carry must be shaped as nothing"):
        plain(episodes)


def test_a_learner_is_freed_without_the_garbage_collector(episodes):
    gc.disable()
    try:
        made = sine_learner()
        made(episodes).backward()
        seen = weakref.ref(made)
        del made
        assert seen() is None
    finally:
        gc.enable()


def test_states_are_forgotten_some_day():
    made = learner(models.mlp(1, [4], 1))
    tasks = data.Sinusoid(3, 3).sample(2)
    for _ in range(40):
        made.model[2] = nn.Linear(4, 1)
        made._shared, made._fast = made._shared, made._fast
        made(tasks)
    plans = made._plans
    assert max(len(plans._states), len(plans._plans)) <= 32
    assert len(plans._passed) <= 3 * 32


def test_a_check_in_inference_mode(episodes):
    made = sine_learner(rule=inner.SGD(0.01))
    with torch.inference_mode():
        assert made.check(episodes).shape == (3,)
