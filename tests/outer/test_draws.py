"""Models that draw random numbers under `Stepwise`: the gradient is that of `Unrolled`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalearn import inner, outer
from metalearn._tree import tree_detach
from tests.cases import relative_difference, sine_episodes, sine_learner, task


def dropping():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double()


def estimate(estimator, episodes, rule=None, model=None, **options):
    rule = rule or inner.SGD(0.1)
    options = {"num_steps": 5, "estimator": estimator, **options}
    learner = outer.MetaLearner(model or dropping(), F.mse_loss, rule, **options)
    torch.manual_seed(1)
    return learner.estimate(episodes, torch.arange(len(episodes.query.x))), torch.rand(())


def assert_equal(stepwise, unrolled, episodes, **options):
    (left, left_after), (right, right_after) = (
        estimate(estimator, episodes, **options) for estimator in (stepwise, unrolled)
    )
    assert relative_difference(left.gradient, right.gradient) < 1e-12
    torch.testing.assert_close(left.loss, right.loss, rtol=1e-12, atol=0)
    assert left_after == right_after  # generators stand where they would


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"batching": "loop"}, {"chunk_size": 2}, {"rule": inner.MetaCurvature(0.1)}],
    ids=["at once", "loop", "chunks", "rule of tasks"],
)
@pytest.mark.parametrize("segment", [None, 2])
def test_dropout_is_that_of_unrolled(num_tasks, options, segment):
    stepwise = outer.Stepwise(segment=segment)
    assert_equal(stepwise, outer.Unrolled(), sine_episodes(num_tasks), **options)


@pytest.mark.parametrize("truncate", [0, 2])
def test_dropout_before_a_cut(truncate):
    stepwise, unrolled = outer.Stepwise(truncate=truncate), outer.Unrolled(truncate=truncate)
    assert_equal(stepwise, unrolled, sine_episodes(3), rule=inner.Adam(0.05))


def test_dropout_under_vmap():
    class Own(outer.Stepwise):
        """One of which nothing is known, so that it is vmapped."""

    assert not Own().traits.leafwise
    other = type("Other", (outer.Unrolled,), {})()
    assert_equal(Own(), other, sine_episodes(3))


def test_a_start_that_draws_is_drawn_again():
    def start(meta, support, key):
        return {name: param * torch.rand(()).double() for name, param in meta.init.items()}

    def gradient(estimator):
        learner = sine_learner(num_steps=2)
        problem, meta = learner.problem._replace(start=start), tree_detach(learner.meta)
        torch.manual_seed(0)
        return estimator(problem, meta, task(sine_episodes()), torch.tensor(0), ()).gradient

    assert relative_difference(gradient(outer.Stepwise()), gradient(outer.Unrolled())) < 1e-12


def test_multi_step_losses_draw_after_all_steps():
    """Their gradient is exact for the draws made, which finite differences must find."""
    episodes, estimator = sine_episodes(1), outer.Stepwise(multi_step=outer.MultiStep())
    model, shift = dropping(), 1e-5
    first = model[0].weight

    def loss(change):
        with torch.no_grad():
            first[0, 0] += change
        found = estimate(estimator, episodes, model=model)[0].loss.item()
        with torch.no_grad():
            first[0, 0] -= change
        return found

    slope = (loss(shift) - loss(-shift)) / (2 * shift)
    found = estimate(estimator, episodes, model=model)[0].gradient.init["0.weight"][0, 0].item()
    assert found == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("how", [{"compile": True}, {"compile": {"backend": "aot_eager"}}])
def test_graphs_are_refused(how):
    learner = outer.MetaLearner(
        dropping(), F.mse_loss, inner.SGD(0.1), num_steps=2, estimator=outer.Stepwise()
    )
    learner(sine_episodes(2))
    learner.set_batching(**how)
    with pytest.raises(ValueError, match=r"graph does not repeat. Call learner.set_batching\('vm"):
        learner(sine_episodes(2))
