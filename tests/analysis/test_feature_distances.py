import numpy as np
import pytest
import torch
import torch.nn as nn

from metalearn import models
from metalearn.analysis import feature_distances
from metalearn.types import Batch, Episode
from tests.analysis.cases import learner, tasks
from tests.cases import sine_episodes


def test_distances_are_those_between_each_pair():
    model, episodes = learner().model, tasks().sample(3)
    result = feature_distances(model.features, episodes)
    assert result.values.shape == result.same_class.shape == (3, 6, 6)
    assert repr(result) == "FeatureDistances(3 tasks, 6 support x 6 query examples)"
    with torch.no_grad():
        support, query = (model.features(part.x[1]) for part in episodes)
    torch.testing.assert_close(result.values[1, 2, 5], (support[2] - query[5]).norm())
    assert (
        result.same_class[1].int().tolist()
        == torch.eye(3).repeat_interleave(2, 0).repeat_interleave(2, 1).tolist()
    )
    assert not (result.same_class & result.other_class).any()
    assert (result.same_class | result.other_class).all()
    assert not result.values.requires_grad


def test_closest_and_farthest_are_those_of_all_pairs():
    model = learner().model
    train, test = (
        tasks().sample(4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    # of other classes, as meta-test data sets are
    test = test.support._replace(y=test.support.y + 3)
    result = feature_distances(model.features, Episode(train.support, test))
    assert not result.same_class.any()
    for task in range(4):
        with torch.no_grad():
            one, two = (model.features(part.x[task]).numpy() for part in (train.support, test))
        distances = {
            (i, j): np.linalg.norm(one[i] - two[j])
            for i in range(len(one))
            for j in range(len(two))
        }
        assert tuple(result.closest[task].tolist()) == min(distances, key=distances.get)
        assert tuple(result.farthest[task].tolist()) == max(distances, key=distances.get)
    assert [text.get_text() for text in result.plot().get_legend().get_texts()] == ["other class"]


def test_labels_do_not_choose_the_closest_and_farthest():
    x = torch.tensor([[[0.0], [10.0], [11.0]]])
    queries = torch.tensor([[[0.5], [3.0], [10.2], [99.0]]])
    episodes = Episode(
        Batch(x, torch.tensor([[0, 1, 1]])), Batch(queries, torch.tensor([[1, 0, 0, 2]]))
    )
    result = feature_distances(nn.Identity(), episodes)
    assert result.closest.tolist() == [[1, 2]]
    assert result.farthest.tolist() == [[0, 3]]
    assert (
        feature_distances(lambda x: x.unsqueeze(-1).expand(-1, -1, 4), episodes).values[0, 0, 0]
        == 1
    )


def test_small_distances_keep_their_digits():
    x = 1000 + torch.arange(30.0).reshape(1, 30, 1) / 64
    batch = Batch(x, torch.zeros(1, 30, dtype=torch.int64))
    assert feature_distances(nn.Identity(), Episode(batch, batch)).values[0, 0, 1] == 1 / 64


def test_plots():
    ax = feature_distances(learner().model.features, tasks().sample(2)).plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "same class",
        "other class",
    ]


def test_bad_input():
    with pytest.raises(
        TypeError,
        match="features must be a module or a function; got 3. Pass learner.model.features",
    ):
        feature_distances(3, tasks().sample(2))
    with pytest.raises(
        ValueError, match="episodes must have labels .num_tasks, num_examples.; got .3, 5, 1."
    ):
        feature_distances(nn.Identity(), sine_episodes())
    single = tasks().sample(2)
    double = single._replace(query=Batch(single.query.x.double(), single.query.y))
    with pytest.raises(ValueError, match=r"be of one dtype; got torch\.float32 and torch\.float64"):
        feature_distances(nn.Flatten(), double)
    with pytest.raises(TypeError, match="an Episode of two Batches"):
        feature_distances(nn.Identity(), tasks())
    empty = tasks().sample(3)
    empty = Episode(*(part._replace(weight=torch.ones(part.y.shape)) for part in empty))
    empty.query.weight[1] = 0
    with pytest.raises(ValueError, match="have examples of weights above 0; got none in tasks .1."):
        feature_distances(nn.Identity(), empty)


def test_padding_is_in_no_pair():
    x = torch.tensor([[[0.0], [1.0], [5.0]]])
    support = Batch(x, torch.tensor([[0, 1, 1]]), torch.tensor([[1.0, 1.0, 0.0]]))
    query = Batch(x, torch.tensor([[0, 1, 0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    result = feature_distances(nn.Identity(), Episode(support, query))
    assert result.same_class[0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert result.other_class[0].int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert result.farthest.tolist() in ([[0, 1]], [[1, 0]])  # not the pairs at 5
    norm = models.BatchNorm(1)
    padded = feature_distances(norm, Episode(support, query)).values[:, :2, :2]
    alone = Episode(*(Batch(part.x[:, :2], part.y[:, :2]) for part in (support, query)))
    torch.testing.assert_close(padded, feature_distances(norm, alone).values)
    with pytest.raises(
        ValueError,
        match=r"features must be floating numbers of shape \(1, 3\) and more; got \(1, 1\)",
    ):
        feature_distances(lambda x: x[:1, 0], Episode(support, query))
