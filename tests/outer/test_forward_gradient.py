"""Forward gradients against projections of the exact gradient, and against it in expectation."""

import math
from functools import partial

import pytest
import torch

from metalearn import functional, inner, outer, testing
from metalearn._tree import tree_leaves, tree_map, tree_ravel
from metalearn.outer._directions import learned_of
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner, task
from tests.outer.cases import train, windows

RULES = [
    inner.LearnedRate(inner.Momentum(0.01), num_steps=2),
    inner.Turtle(hidden=(3,), lr=0.01),
    RandomMask(0.01),
]


def signs(learner, key, count):
    """Return the directions of a task, `[count, number of learned numbers]`."""
    key, learned = functional.derive_key(key), learned_of(learner.problem, learner.meta)
    drawn = [
        functional.uniform(key, (count, *leaf.shape), stream).reshape(count, -1)
        for stream, leaf in enumerate(tree_leaves(learned))
    ]
    return (torch.cat(drawn, 1) > 0.5) * 2.0 - 1


def projected(learner, gradient, key, count):
    """Return the mean of v (v . gradient) over a task's directions v, as a vector."""
    directions = signs(learner, key, count).double()
    return directions.T @ (directions @ vector_of(learner, gradient)) / count


def vector_of(learner, gradient):
    return tree_ravel(learned_of(learner.problem, gradient))[0]


@pytest.mark.parametrize("learn_init", [True, False, "4"])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("estimator", [outer.ForwardMode(1000), outer.Unrolled()], ids=str)
def test_projects_the_exact_gradient(estimator, rule, learn_init, episodes):
    options = {"fast": ["0", "4"], "learn_init": learn_init}
    exact = sine_learner(rule, estimator=estimator, **options)
    ours = sine_learner(rule, estimator=outer.ForwardGradient(3), **options)
    for index in range(2):
        one, key = task(episodes, slice(index, index + 1)), keys()[index : index + 1]
        expected, got = (each.estimate(one, key) for each in (exact, ours))
        wanted = projected(ours, expected.gradient, key[0], 3)
        assert relative_difference(vector_of(ours, got.gradient), wanted) < 1e-11
        torch.testing.assert_close(got.loss, expected.loss, rtol=1e-12, atol=0)
        assert got.gradient.init["0.weight"].any() == (learn_init is True)


@pytest.fixture(scope="module")
def errors():
    """The exact gradient of one task, and 2,000 estimates' differences from it."""
    problem, meta, episode = _pure()
    exact = outer.Unrolled()(problem, meta, episode, torch.tensor(0), ()).gradient

    def error(key):
        gradient = outer.ForwardGradient(2)(problem, meta, episode, key, ()).gradient
        return tree_ravel(gradient)[0] - tree_ravel(exact)[0]

    return tree_ravel(exact)[0], torch.func.vmap(error)(torch.arange(2000))


def _pure():
    learner = sine_learner(inner.LearnedRate(inner.SGD(0.01)), fast="4")
    return learner.problem, tree_map(torch.Tensor.detach, learner.meta), task(sine_episodes())


def test_agrees_with_the_exact_gradient_in_expectation(errors):
    exact, error = errors
    deviation = error.std(0) / math.sqrt(len(error))
    assert ((error.mean(0) / deviation).abs() < 4).all()
    assert error.mean(0).norm() < 0.25 * exact.norm()


def test_has_the_variance_that_is_said(errors):
    exact, error = errors
    expected = (exact.square().sum() - exact.square()) / 2
    torch.testing.assert_close(error.square().mean(0), expected, rtol=0.15, atol=0)


@pytest.mark.parametrize(
    "options", [{"batching": "loop"}, {"chunk_size": 2}, {"compile": {"backend": "eager"}}], ids=str
)
def test_all_ways_of_running_agree(options, episodes):
    usual, other = (
        sine_learner(RULES[0], estimator=outer.ForwardGradient(2), **each).estimate(
            episodes, keys()
        )
        for each in ({}, options)
    )
    assert relative_difference(other.gradient, usual.gradient) < 1e-11
    assert torch.allclose(other.loss, usual.loss, rtol=1e-12)


def test_replicas_draw_as_learners_do(episodes):
    learners = [sine_learner(RULES[0], estimator=outer.ForwardGradient(2)) for _ in range(2)]
    with torch.no_grad():
        learners[1].model[4].bias += 0.1
    twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
    got = outer.Replicas(learners).estimate(twice, keys().repeat(2)).gradient
    for index, learner in enumerate(learners):
        wanted = learner.estimate(episodes, keys()).gradient
        assert relative_difference(task(got, index), wanted) < 1e-11


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
def test_windows_go_on(options):
    """In every window of a run it projects the gradient of `Unrolled` in that window."""

    def goes_on(estimator):
        rule = inner.LearnedRate(inner.Adam(0.01))
        estimator = outer.Continued(estimator, horizon=9)
        return sine_learner(rule, estimator=estimator, fast=["0", "4"], **options)

    ours = goes_on(outer.ForwardGradient(2))
    alone = [goes_on(outer.Unrolled()) for _ in range(3)]
    results = train(ours, windows(5))
    wanted = [torch.zeros(()) for _ in results]
    for index, learner in enumerate(alone):
        for number, each in enumerate(windows(5)):
            if number == index + 1:
                learner.carry.reset()  # of three problems, one starts again after each window
            learner.zero_grad()
            key = keys()[index : index + 1] + 100 * number
            learner(task(each, slice(index, index + 1)), keys=key).backward()
            gradient = tree_map(lambda leaf: leaf.grad, learner.meta)
            wanted[number] = wanted[number] + projected(learner, gradient, key[0], 2) / 3
    for (_, got), expected in zip(results, wanted, strict=True):
        vector = torch.cat([leaf.reshape(-1) for leaf in got])
        assert relative_difference(vector, expected) < 1e-11
    assert ours.inner_models.age.tolist() == [3, 9, 6]


def test_memory_grows_with_directions_and_not_with_steps():
    many, peaks = sine_episodes(num_tasks=4, k_shot=32), {}
    for count, num_steps in ((2, 3), (2, 12), (8, 3)):
        learner = sine_learner(estimator=outer.ForwardGradient(count), num_steps=num_steps)
        learner.estimate(many)
        peaks[count, num_steps] = testing.peak_live_bytes(partial(learner.estimate, many))
    assert peaks[2, 12] <= 1.02 * peaks[2, 3]
    assert 2 * peaks[2, 3] < peaks[8, 3] < 4 * peaks[2, 3]


def test_trains_a_start(episodes):
    learner = sine_learner(estimator=outer.ForwardGradient(16))
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    losses = []
    for iteration in range(60):
        loss = learner(episodes, keys=keys() + 10 * iteration)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: outer.ForwardGradient(0), ValueError, "num_directions must be at least 1; got 0"),
        (lambda: outer.ForwardGradient(1.5), TypeError, "num_directions must be an int; got 1.5"),
        (
            lambda: sine_learner(estimator=outer.ForwardGradient(), learn_init=False),
            ValueError,
            "learned numbers must be at least 1 for forward mode; got none. Learn a rate",
        ),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error, match=message):
        build()
