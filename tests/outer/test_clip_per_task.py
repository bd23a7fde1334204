import torch

from metalearn import inner, outer
from metalearn._tree import tree_detach, tree_leaves
from tests.cases import keys, relative_difference, sine_learner, task


def gradients(estimator, episodes, index):
    learner = sine_learner(inner.MetaSGD(0.01), fast=["2", "4"])
    meta = tree_detach(learner.meta)
    return estimator(learner.problem, meta, task(episodes, index), keys()[index], ()).gradient


def test_clips_each_task_before_the_mean(episodes):
    bound = 0.3
    learner = sine_learner(estimator=outer.ClipPerTask(outer.Unrolled(), bound))
    plain = sine_learner()
    each = [
        plain.estimate(task(episodes, slice(i, i + 1)), keys()[i : i + 1]).gradient.init
        for i in range(3)
    ]
    expected = {
        name: torch.stack([g[name].clamp(-bound, bound) for g in each]).mean(0) for name in each[0]
    }
    clipped = learner.estimate(episodes, keys()).gradient.init
    assert relative_difference(clipped, expected) < 1e-12
    assert relative_difference(clipped, plain.estimate(episodes, keys()).gradient.init) > 1e-2


def test_shared_gradients_are_clipped_before_the_sum(episodes):
    bound, fast = 0.05, ["2", "4"]
    plain = sine_learner(fast=fast)
    each = [
        plain.estimate(task(episodes, slice(i, i + 1)), keys()[i : i + 1]).gradient.shared
        for i in range(3)
    ]
    expected = {
        name: torch.stack([g[name].clamp(-bound, bound) for g in each]).mean(0) for name in each[0]
    }
    learner = sine_learner(
        fast=fast, estimator=outer.ClipPerTask(outer.Unrolled(), bound, on="shared")
    )
    assert relative_difference(learner.estimate(episodes, keys()).gradient.shared, expected) < 1e-12


def test_clips_only_what_it_is_told_to(episodes):
    exact = gradients(outer.Unrolled(), episodes, 0)
    for field in ("init", "shared", "rule"):
        clipped = gradients(outer.ClipPerTask(outer.Unrolled(), 1e-3, on=field), episodes, 0)
        for name in ("init", "shared", "rule"):
            ours, theirs = getattr(clipped, name), getattr(exact, name)
            if name == field:
                assert max(leaf.abs().max() for leaf in tree_leaves(ours)) <= 1e-3
            else:
                assert relative_difference(ours, theirs) == 0


def test_adapts_as_the_wrapped_estimator(episodes):
    clipped = sine_learner(estimator=outer.ClipPerTask(outer.Unrolled(), 1.0)).adapt(
        episodes.support
    )
    assert relative_difference(clipped.params, sine_learner().adapt(episodes.support).params) == 0
