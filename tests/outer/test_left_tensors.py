"""Models that leave tensors in their attributes: losses may read them, copies and pickles do not
see them."""

import copy
import pickle

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import evaluate, functional, inner, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference, sine_episodes, task
from tests.outer.cases import SGD, learner

WAYS = [{}, {"chunk_size": 2}, {"batching": "loop"}, {"compile": {"backend": "eager"}}]


class Features(nn.Module):
    """A model that keeps its features in an attribute, a list and a plain module."""

    def __init__(self, leaves=True):
        super().__init__()
        self.body, self.head = nn.Linear(1, 4).double(), nn.Linear(4, 1).double()
        self.features, self.log, self.plain, self.leaves = None, [], [nn.Identity()], leaves

    def forward(self, x):
        h = torch.tanh(self.body(x))
        if self.leaves:
            self.features = h
            self.log.append(h)
            self.plain[0].h = h
        return self.head(h)


class Penalised(nn.Module):
    """A criterion that reads the model's features, and leaves its own value."""

    def __init__(self, model):
        super().__init__()
        self.model = [model]

    def forward(self, output, y):
        self.value = F.mse_loss(output, y) + self.model[0].features.square().mean()
        return self.value


def features(**state):
    torch.manual_seed(0)
    return Features(**state)


def assert_clean(model):
    assert model.features is None
    assert model.log == []
    assert not hasattr(model.plain[0], "h")


def assert_copies(made, episodes):
    expected = made.adapt(episodes.support)(episodes.query.x)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(other.adapt(episodes.support)(episodes.query.x), expected)
    for index in range(3):
        torch.testing.assert_close(
            made.adapt(episodes.support)[index](episodes.query.x[index]), expected[index]
        )


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_learners_are_copied_whatever_was_called(options):
    model, episodes = features(), sine_episodes()
    made, quiet = learner(model, **options), learner(features(leaves=False), **options)
    calls = {
        "forward": lambda of: of(episodes, keys=keys()).backward(),
        "without gradient": torch.no_grad()(lambda of: of(episodes, keys=keys())),
        "estimate": lambda of: of.estimate(episodes, keys()),
        "check": lambda of: of.check(episodes, keys()),
        "adapt": lambda of: of.adapt(episodes.support),
        "outputs": lambda of: of.adapt(episodes.support)(episodes.query.x),
        "losses": lambda of: of.adapt(episodes.support).loss(episodes.query),
        "one model": lambda of: of.adapt(episodes.support)[1],
        "evaluate": lambda of: evaluate(of, [episodes], num_tasks=3, metrics={"mse": F.mse_loss}),
    }
    for call in calls.values():
        call(made)
        assert_clean(model)
    assert_copies(made, episodes)
    one, other = (each.estimate(episodes, keys()).gradient for each in (made, quiet))
    assert relative_difference(one, other) < 1e-12


def test_replicas():
    made = outer.Replicas([learner(features()) for _ in range(2)])
    made(sine_episodes(4)).sum().backward()
    assert_clean(made.learner.model)
    with torch.no_grad():
        made(sine_episodes(4))
    assert_clean(made.learner.model)
    made[1](sine_episodes())


@pytest.mark.parametrize("options", WAYS[:3], ids=str)
def test_a_criterion_reads_what_the_model_left_for_it(options):
    model, episodes = features(), sine_episodes()
    made = learner(model, Penalised(model), **options)
    loss = made(episodes, keys=keys())
    loss.backward()
    assert_clean(model)
    assert not hasattr(made.criterion, "value")
    assert_copies(made, episodes)

    def by_hand(params, shared, batch):
        h = torch.tanh(F.linear(batch.x, params["body.weight"], params["body.bias"]))
        output = F.linear(h, params["head.weight"], params["head.bias"])
        return F.mse_loss(output, batch.y) + h.square().mean()

    other = learner(
        features(),
        None,
        support_loss=lambda params, shared, episode, step: by_hand(params, shared, episode.support),
        query_loss=lambda params, shared, episode: by_hand(params, shared, episode.query),
    )
    other(episodes, keys=keys()).backward()
    for name, param in other.model.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, param.grad)


@pytest.mark.parametrize("options", WAYS[:3], ids=str)
def test_what_a_call_outside_of_the_learner_has_left(options):
    model, episodes = features(), sine_episodes()
    made = learner(model, **options)
    model(episodes.support.x[0])
    left = model.features
    adapted = made.adapt(episodes.support)
    torch.testing.assert_close(adapted[1](episodes.query.x[1]), adapted(episodes.query.x)[1])
    outer.Replicas([learner(model)])[0](episodes)
    assert model.features is left
    assert left.requires_grad


def test_losses_of_ones_own_and_pure_functions():
    model, episodes = features(), sine_episodes()

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, params, shared, episode, *_):
            self.last = torch.func.functional_call(self.model, params, (episode.query.x,))
            return F.mse_loss(self.last, episode.query.y)

    loss = Loss()
    made = learner(model, F.mse_loss, query_loss=loss)
    made(episodes).backward()
    made.adapt(episodes.support).loss(episodes.query)
    assert_clean(model)
    assert not hasattr(loss, "last")
    of_model = functional.ModelLoss(model, F.mse_loss)
    support, query = functional.OnSupport(of_model), functional.OnQuery(of_model)
    gradient = outer.meta_gradient(support, query, SGD, outer.Unrolled(), 2)
    torch.func.vmap(gradient, (None, 0, 0))(made.meta._replace(shared={}), episodes, keys())
    assert_clean(model)


@pytest.mark.filterwarnings("ignore:.*spectral_norm")
def test_what_a_hook_leaves_with_old_spectral_norm():
    layer = nn.utils.spectral_norm(nn.Linear(1, 4).double())
    made = learner(nn.Sequential(layer, nn.Linear(4, 1).double())).eval()
    made(sine_episodes()).backward()
    assert_copies(made, sine_episodes())


def test_one_task_and_plain_counters():
    class Counting(Features):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = Counting()
    learner(model, rule=inner.SGD(0.1))(task_of_one()).backward()
    assert_clean(model)
    assert model.calls > 3


def task_of_one():
    one = task(sine_episodes(), slice(0, 1))
    return Episode(Batch(*one.support[:2]), Batch(*one.query[:2]))
