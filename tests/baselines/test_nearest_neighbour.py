import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, evaluate, functional
from metalearn.types import Episode
from tests.baselines.cases import body_of, labelled, padded

METRICS = {"accuracy": functional.accuracy}


def learner_of(num_support=9, num_features=4):
    body = body_of(num_features)
    return baselines.NearestNeighbour(body, num_features, 3, num_support).double()


def squares_by_class(learner, episodes, index):
    """Return squared distances of query examples to the closest support example of every class."""
    support, query = (learner.model.body(batch.x[index]) for batch in episodes)
    squares, labels = torch.cdist(query, support) ** 2, episodes.support.y[index]
    return torch.stack([squares[:, labels == label].amin(1) for label in range(3)], 1)


@pytest.mark.parametrize("pad", [False, True])
def test_logits_are_distances_to_the_closest_of_a_class(pad):
    episodes = labelled()
    learner = learner_of(11 if pad else 9)
    adapted = learner.adapt((padded(episodes) if pad else episodes).support)
    logits = adapted(episodes.query.x)
    for index in range(3):
        squares = squares_by_class(learner, episodes, index)
        own = learner.model.body(episodes.query.x[index]).square().sum(1, keepdim=True)
        torch.testing.assert_close(logits[index] - own, -squares, rtol=1e-10, atol=1e-10)


def test_accuracy_is_that_of_the_closest_example():
    learner, episodes = learner_of(), labelled()
    evaluation = evaluate(learner, [episodes], num_tasks=3, metrics=METRICS)
    for index, accuracy in enumerate(evaluation["accuracy"].values):
        support, query = (learner.model.body(batch.x[index]) for batch in episodes)
        closest = episodes.support.y[index][torch.cdist(query, support).argmin(1)]
        expected = (closest == episodes.query.y[index]).float().mean()
        assert accuracy == expected


def test_classes_that_are_not_there_are_never_closest():
    episodes = labelled()
    few = [batch._replace(y=batch.y.clamp(max=1)) for batch in episodes]
    adapted = learner_of().adapt(few[0])
    assert (adapted(few[1].x).argmax(-1) < 2).all()
    assert adapted.loss(few[1]).isfinite().all()


def test_pixels_of_images_are_features_too():
    images = torch.randint(256, (6, 12, 8, 8), generator=torch.manual_seed(0)).byte()
    tasks = data.EpisodeSampler(data.ClassImages(images), n_way=3, k_shot=2, num_query=2)
    learner = baselines.NearestNeighbour(nn.Flatten(), 64, 3, num_support=6)
    episodes = tasks.sample(4)
    same = Episode(episodes.support, episodes.support)
    assert evaluate(learner, [same], num_tasks=4, metrics=METRICS)["accuracy"].mean == 1


def test_nothing_is_learned_of_a_copy():
    body = body_of(4)
    learner = baselines.NearestNeighbour(body, 4, 3, 9).double()
    assert list(learner.parameters()) == list(learner.model.body.parameters())
    assert not any(param.requires_grad for param in learner.parameters())
    assert all(param.requires_grad for param in body.parameters())
    assert not learner(labelled()).requires_grad


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError,
        match=r"have 8 examples; got 9. Write "
        r"baselines.NearestNeighbour\(body, 4, 3, 9\).",
    ):
        learner_of(8).adapt(labelled().support)
    with pytest.raises(ValueError, match=r"Write baselines.NearestNeighbour\(body, 4, 3, 9\)."):
        baselines.NearestNeighbour(body_of(4), 5, 3, 9).double().adapt(labelled().support)
    support = labelled().support
    one_hot = support._replace(y=F.one_hot(support.y, 3))
    with pytest.raises(ValueError, match=r"support.y of NearestNeighbour must be labels .* Write"):
        learner_of(9).adapt(one_hot)
    with pytest.raises(ValueError, match="NearestNeighbour's num_support must be at least 1"):
        learner_of(0)
    with pytest.raises(TypeError, match="NearestNeighbour's body must be a module"):
        baselines.NearestNeighbour(torch.flatten, 4, 3, 9)
