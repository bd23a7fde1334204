import itertools

import pytest
import torch

from metalearn import analysis, data, evaluate, functional
from metalearn.analysis._label_permutations import _permutations
from tests.analysis.cases import learner, options, tasks
from tests.cases import sine_episodes, sine_learner


def permutations(num_tasks=4, **change):
    arguments = {"num_tasks": num_tasks, "generator": options()["generator"], **change}
    return analysis.label_permutations(learner(), tasks(), **arguments)


def error(output, y):
    """A score that tells every permutation from every other."""
    return torch.nn.functional.cross_entropy(output, y)


def test_all_permutations_are_those_of_hand_made_tasks():
    scores = permutations(metric=error).scores
    assert scores.shape == (4, 6)
    episodes = tasks().sample(4, generator=options()["generator"])
    for column, order in enumerate(itertools.permutations(range(3))):
        support, query = (part._replace(y=torch.tensor(order)[part.y]) for part in episodes)
        expected = evaluate(
            learner(), [episodes._replace(support=support, query=query)], num_tasks=4
        )
        torch.testing.assert_close(scores[:, column], expected["loss"].values)


def test_the_first_is_the_tasks_as_they_are():
    alone = evaluate(learner(), tasks(), **options(40))
    torch.testing.assert_close(permutations(40).scores[:, 0], alone["accuracy"].values)


def test_drawn_permutations_differ_by_task_and_are_some_of_all():
    every, drawn = (
        permutations(metric=error).scores,
        permutations(metric=error, num_permutations=9).scores,
    )
    assert drawn.shape == (4, 9)
    near = (drawn.unsqueeze(2) - every.unsqueeze(1)).abs()
    assert near.amin(2).max() < 1e-5
    assert len({tuple(row) for row in near.argmin(2).tolist()}) > 1
    assert torch.equal(drawn, permutations(metric=error, num_permutations=9).scores)


def test_labels_are_not_what_a_rule_draws_of_the_same_keys():
    keys = functional.draw_keys(50, generator=torch.Generator().manual_seed(0))
    (labels,) = _permutations(5, 1, keys)
    assert not torch.equal(labels, functional.uniform(keys[:, None], (5,)).argsort(1))


def test_statistics_are_over_permutations():
    scores = torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])
    result = analysis.LabelPermutations(scores)
    torch.testing.assert_close(result.mean.values, torch.tensor([0.5, 0.2]))
    torch.testing.assert_close(result.std.values, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(result.best.values, torch.tensor([1.0, 0.2]))
    torch.testing.assert_close(result.worst.values, torch.tensor([0.0, 0.2]))
    assert repr(result).endswith("(2 tasks, 3 permutations)")


def test_plots():
    result = permutations()
    ax = result.plot()
    assert ax.lines[0].get_ydata().tolist() == sorted(result.mean.values.tolist())


def test_bad_input():
    with pytest.raises(ValueError, match="num_permutations must be at least 1"):
        permutations(num_permutations=0)
    with pytest.raises(
        TypeError, match="episodes must have labels, int64 .num_tasks, num_examples.; got torch.fl"
    ):
        analysis.label_permutations(sine_learner(), sine_episodes(), num_tasks=3, metric=error)
    many = data.EpisodeSampler(
        data.ClassImages(torch.zeros(7, 2, 8, 8, dtype=torch.uint8)), 7, 1, 1
    )
    with pytest.raises(
        ValueError, match="num_permutations must be given for more than 6 classes; got 7 classes"
    ):
        analysis.label_permutations(learner(), many, num_tasks=1, metric=functional.accuracy)
    negative = tasks().sample(2)
    negative.query.y[0, 0] = -1
    with pytest.raises(ValueError, match="labels must be at least 0; got -1"):
        analysis.label_permutations(learner(), negative, num_tasks=2)


def test_is_checked_like_an_evaluation():
    made = learner()
    made.model.add_module("drop", torch.nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="units are dropped"):
        analysis.label_permutations(made, tasks(), num_tasks=2)
    other = tasks().sample(2)
    other = other._replace(query=other.query._replace(x=other.query.x.flatten(2)))
    with pytest.raises(ValueError, match="query loss must be computable"):
        analysis.label_permutations(learner(), [other], num_tasks=2)
