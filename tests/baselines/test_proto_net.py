import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data
from metalearn.types import Batch, Episode

IMAGES = data.ClassImages(torch.randint(256, (6, 12, 8, 8), generator=torch.manual_seed(0)).byte())


def learner_of():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh()).double()
    return baselines.ProtoNet(body, 8, 3).double()


def episodes_of(**counts):
    sampler = data.EpisodeSampler(IMAGES, **{"n_way": 3, "k_shot": 4, "num_query": 2, **counts})
    episodes = sampler.sample(3, generator=torch.Generator().manual_seed(1))
    return Episode(*(batch._replace(x=batch.x.double()) for batch in episodes))


def test_one_step_goes_to_the_class_means():
    learner, episodes = learner_of(), episodes_of()
    prototypes = learner.adapt(episodes.support).params["prototypes"]
    features = learner.model.body(episodes.support.x.flatten(0, 1)).unflatten(0, (3, 3, 4))
    torch.testing.assert_close(prototypes, features.mean(2).detach())


def test_loss_and_gradient_are_those_of_the_paper():
    learner, episodes = learner_of(), episodes_of()
    loss = learner(episodes)
    loss.backward()
    ours = [param.grad.clone() for param in learner.model.body.parameters()]
    losses = []
    for task in range(3):
        prototypes = learner.model.body(episodes.support.x[task]).unflatten(0, (3, 4)).mean(1)
        distances = torch.cdist(learner.model.body(episodes.query.x[task]), prototypes) ** 2
        losses.append(F.cross_entropy(-distances, episodes.query.y[task]))
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(loss.detach(), expected.detach())
    for grad, theirs in zip(
        ours, torch.autograd.grad(expected, list(learner.model.body.parameters())), strict=True
    ):
        torch.testing.assert_close(grad, theirs)


def test_classes_may_differ_in_size():
    learner, episodes = learner_of(), episodes_of(k_shot=(1, 4), n_way=(2, 3))
    episodes = Episode(*(Batch(batch.x, batch.y, batch.weight.double()) for batch in episodes))
    prototypes = learner.adapt(episodes.support).params["prototypes"]
    for task in range(3):
        for label in range(3):
            own = (episodes.support.y[task] == label) & (episodes.support.weight[task] > 0)
            features = learner.model.body(episodes.support.x[task][own]).detach()
            expected = features.mean(0) if own.any() else torch.zeros(8).double()
            torch.testing.assert_close(prototypes[task, label], expected)
