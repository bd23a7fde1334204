import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, outer
from tests.cases import keys, relative_difference, sine_episodes, sine_learner, task

SKIPPING = outer.SkipDiverged(outer.Unrolled())


def without_the_second(learner, episodes):
    """Return the gradient of three tasks, of which the second counts as zero."""
    others = [
        learner.estimate(task(episodes, slice(i, i + 1)), keys()[i : i + 1]).gradient.init
        for i in (0, 2)
    ]
    return {name: (others[0][name] + others[1][name]) / 3 for name in others[0]}


def test_others_count_as_before(episodes):
    broken = sine_episodes()
    broken.support.y[1, 0] = torch.inf
    estimate = sine_learner(estimator=SKIPPING).estimate(broken, keys())
    assert estimate.diagnostics["finite"].tolist() == [True, False, True]
    assert estimate.loss.isnan().tolist() == [False, True, False]
    assert (
        relative_difference(estimate.gradient.init, without_the_second(sine_learner(), episodes))
        < 1e-12
    )


def test_a_gradient_alone_that_is_not_finite():
    """The root of 0 is finite, and its slope is not."""
    learner = sine_learner(estimator=SKIPPING)
    learner = outer.MetaLearner(
        learner.model,
        lambda output, y: (output - y).square().mean().sqrt(),
        learner.problem.rule,
        num_steps=1,
        estimator=SKIPPING,
    )
    episodes = sine_episodes()
    adapted = learner.adapt(episodes.support, keys=keys())
    episodes.query.y[1] = adapted(episodes.query.x)[1]
    estimate = learner.estimate(episodes, keys())
    assert estimate.diagnostics["finite"].tolist() == [True, False, True]
    assert estimate.loss.isnan().tolist() == [False, True, False]
    assert all(leaf.isfinite().all() for leaf in estimate.gradient.init.values())


def test_a_loss_alone_that_is_not_finite(episodes):
    """The absolute error of an infinite target is infinite, and its slope is not."""
    skipping, plain = (
        outer.MetaLearner(
            sine_learner().model, F.l1_loss, inner.SGD(0.01), num_steps=1, estimator=estimator
        )
        for estimator in (SKIPPING, outer.Unrolled())
    )
    broken = sine_episodes()
    broken.query.y[1, 0] = torch.inf
    estimate = skipping.estimate(broken, keys())
    assert estimate.loss.isnan().tolist() == [False, True, False]
    assert relative_difference(estimate.gradient.init, without_the_second(plain, episodes)) < 1e-12


def test_refuses_what_is_no_estimator():
    with pytest.raises(
        TypeError, match=r"SkipDiverged's estimator must be an estimator; .* one to wrap: Unrolled"
    ):
        outer.SkipDiverged("unrolled")
