"""What is carried of a solution, in all ways of running."""

import copy

import pytest
import torch

from metalearn import functional, inner, outer
from metalearn._tasks import take
from metalearn._tree import tree_leaves, tree_map
from metalearn.types import Problem
from tests.cases import keys, relative_difference, sine_episodes, sine_learner, task
from tests.outer import ridge
from tests.outer.cases import assert_reading_leaves_the_carry

SOLVER = outer.Neumann(2, 0.05)
ALONE = [
    outer.Implicit(1.0, SOLVER, warm_start=True),
    outer.Implicit(0.0, SOLVER, epsilon=0.01, warm_start=True),
    outer.Penalty(10.0, warm_start=True),
]
GOING_ON = [
    *map(outer.Continued, ALONE),
    outer.Continued(outer.OneStep()),
]
ALL = [*ALONE, *GOING_ON, outer.Continued(outer.Penalty(10.0), horizon=4)]
pytestmark = pytest.mark.filterwarnings("ignore:.*at its first call")


def learner_of(estimator, **options):
    given = {"rule": inner.Momentum(0.01), "num_steps": 2, "fast": "4"} | options
    return sine_learner(estimator=estimator, learn_init="init" in estimator.reaches, **given)


def carried(learner):
    """Return what each problem carries, ages as numbers."""
    return tree_map(torch.Tensor.double, learner.carry.value.own)


def train(learner, count=3, num_tasks=3):
    """Return every meta-step's loss and gradient, of other examples in each."""
    results = []
    for number in range(count):
        episodes = tree_map(lambda leaf, n=number: leaf + 0.1 * n, sine_episodes(num_tasks))
        learner.zero_grad()
        loss = learner(episodes, keys=keys(num_tasks) + 100 * number)
        loss.backward()
        results.append((loss.detach(), [param.grad.clone() for param in learner.parameters()]))
    return results


@pytest.mark.parametrize("estimator", ALL, ids=str)
@pytest.mark.parametrize(
    "options", [{"batching": "loop"}, {"chunk_size": 2}, {"compile": {"backend": "eager"}}], ids=str
)
def test_all_ways_of_running_agree(estimator, options):
    plain, other = learner_of(estimator), learner_of(estimator, **options)
    assert relative_difference(train(other), train(plain)) < 1e-9
    assert relative_difference(carried(other), carried(plain)) < 1e-9


@pytest.mark.parametrize("estimator", [*ALONE, *GOING_ON], ids=str)
def test_every_task_has_a_solution_of_its_own(estimator):
    """Three tasks together are the mean of each alone."""
    together = learner_of(estimator)
    alone = [learner_of(estimator) for _ in range(3)]
    for number in range(3):
        episodes = tree_map(lambda leaf, n=number: leaf + 0.1 * n, sine_episodes())
        some_keys = keys() + 100 * number
        loss = together(episodes, keys=some_keys)
        each = [
            learner(task(episodes, slice(i, i + 1)), keys=some_keys[i : i + 1])
            for i, learner in enumerate(alone)
        ]
        torch.testing.assert_close(loss, torch.stack(each).mean(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_replicas_carry_what_learners_do(estimator):
    learners = [learner_of(estimator) for _ in range(2)]
    with torch.no_grad():
        learners[1].model[4].bias += 0.1
    replicas = outer.Replicas(learners)
    for number in range(3):
        episodes = tree_map(lambda leaf, n=number: leaf + 0.1 * n, sine_episodes())
        twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
        losses = replicas(twice, keys=keys().repeat(2) + 100 * number)
        for learner, loss in zip(learners, losses, strict=True):
            wanted = learner(episodes, keys=keys() + 100 * number)
            torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=0)
    for index, learner in enumerate(learners):
        assert relative_difference(carried(replicas[index]), carried(learner)) < 1e-9


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_a_loaded_learner_goes_on(estimator):
    learner, other = learner_of(estimator), learner_of(estimator)
    train(learner)
    other.load_state_dict(learner.state_dict())
    results = [train(each) for each in (learner, other)]
    assert relative_difference(*results) == 0


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_only_training_advances(estimator, episodes):
    learner = learner_of(estimator)
    train(learner)
    assert_reading_leaves_the_carry(learner, episodes)


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_a_task_that_diverges_leaves_no_nan(estimator, episodes):
    learner = learner_of(outer.SkipDiverged(estimator))
    learner(episodes, keys=keys())
    before = copy.deepcopy(learner.carry.value.own)
    bad = copy.deepcopy(episodes)
    bad.support.y[1] = torch.nan
    learner(bad, keys=keys())
    assert learner.diagnostics["finite"].tolist() == [True, False, True]
    after = learner.carry.value.own
    assert all(leaf.isfinite().all() for leaf in tree_leaves(after))
    if not isinstance(estimator, outer.Continued):  # which starts it again
        assert relative_difference(take(after, 1), take(before, 1)) == 0
    learner(episodes, keys=keys())
    assert learner.diagnostics["finite"].all()


@pytest.mark.parametrize("estimator", ALL, ids=str)
def test_another_number_of_tasks_is_refused(estimator, episodes):
    learner = learner_of(estimator)
    learner(episodes)
    with pytest.raises(ValueError, match="that go on must be 3 tasks; got 1"):
        learner(task(episodes, slice(0, 1)))
    learner.carry.reset()
    learner(task(episodes, slice(0, 1)))


@pytest.mark.parametrize("estimator", GOING_ON, ids=str)
def test_the_inner_models_are_there(estimator, episodes):
    learner = learner_of(estimator)
    for _ in range(2):
        learner(episodes, keys=keys())
    assert learner.inner_models.age.tolist() == [4, 4, 4]
    assert learner.inner_models.loss(episodes.query).shape == (3,)


@pytest.mark.parametrize("estimator", ALONE, ids=str)
def test_without_windows_there_are_none(estimator, episodes):
    learner = learner_of(estimator)
    learner(episodes)
    with pytest.raises(ValueError, match="inner models must have started; got none. Train a lea"):
        learner.inner_models  # noqa: B018


def test_a_problem_that_starts_again_forgets_its_solution():
    """With a horizon of one window it is as if nothing were carried."""
    estimator = outer.Implicit(1.0, SOLVER, warm_start=True)
    again = train(learner_of(outer.Continued(estimator, horizon=2)))
    afresh = train(learner_of(outer.Implicit(1.0, SOLVER)))
    assert relative_difference(again, afresh) < 1e-10


def test_a_problem_keeps_the_start_that_it_was_drawn_with():
    """Every window is drawn to it, whatever the window's key is."""

    def start(meta, support, key):
        return {"w": functional.normal(key, (4,), dtype=torch.float64)}

    problem = Problem(ridge.ridge, ridge.on_query, inner.SGD(0.1), 20, start=start)
    estimator, key = outer.Continued(outer.Implicit(1.0, outer.CG(4))), torch.tensor(7)
    meta, episode = ridge.META, ridge.EPISODE
    carry = estimator.init_carry(problem, meta, episode, key)
    for number in range(30):
        carry = estimator(problem, meta, episode, key + number, carry).carry

    x, y = episode.support.x, episode.support.y
    matrix = x.T @ x / len(x) + torch.diag(meta.shared["log_decay"].exp() + 1.0)
    solution = torch.linalg.solve(matrix, x.T @ y / len(x) + start(meta, None, key)["w"])
    torch.testing.assert_close(carry.own.params["w"], solution, rtol=1e-9, atol=1e-9)
