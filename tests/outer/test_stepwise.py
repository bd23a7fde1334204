"""Segments of `Stepwise`; that it equals `Unrolled`, and its memory without them, are in
test_contract.py."""

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer, testing
from metalearn._tree import tree_detach
from metalearn.types import Batch, Episode, Meta
from tests.cases import RandomMask, relative_difference, sine_episodes, task

RULES = [inner.MetaSGD(0.05), inner.Adam(0.05), inner.LSTM(0.05, hidden_size=3), RandomMask(0.05)]


def build(rule, estimator, **options):
    torch.manual_seed(0)
    model = models.mlp(1, [6, 6], 1).double()
    return outer.MetaLearner(
        model, F.mse_loss, rule, **{"num_steps": 7, **options}, estimator=estimator
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize(
    "options", [{}, {"order": 1, "multi_step": outer.MultiStep()}], ids=["exact", "first order"]
)
def test_segments_do_not_change_the_gradient(rule, options):
    assert_equal(rule, options, 3)


@pytest.mark.parametrize("segment", [1, 7, 20])
@pytest.mark.parametrize("truncate", [None, 0, 4])
def test_segments_of_any_length_after_any_cut(truncate, segment):
    assert_equal(inner.SGD(0.05), {"truncate": truncate, "multi_step": outer.MultiStep()}, segment)


def assert_equal(rule, options, segment):
    episodes, keys = sine_episodes(3), torch.arange(3)
    whole, parts = (
        build(rule, outer.Stepwise(**options, segment=size)).estimate(episodes, keys)
        for size in (None, segment)
    )
    assert relative_difference(parts.gradient, whole.gradient) < 1e-12
    torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_what_is_drawn_before_a_cut_gets_nothing_through_it(order):
    """The logits of a mask have no gradient then, and a learned rate has."""
    rule = inner.LearnedRate(inner.Masked(inner.SGD(0.05), hard=False))
    learner = build(rule, outer.Unrolled(), num_steps=4)
    arguments = (
        learner.problem,
        tree_detach(learner.meta),
        task(sine_episodes()),
        torch.tensor(0),
        (),
    )
    stepwise, unrolled = (
        kind(order, truncate=2)(*arguments).gradient for kind in (outer.Stepwise, outer.Unrolled)
    )
    assert relative_difference(stepwise, unrolled) < 1e-9


@pytest.mark.parametrize(("segment", "count"), [(None, 6), (2, 8)])
def test_the_last_segment_is_not_computed_again(segment, count):
    """Three steps and their derivatives, and two steps more where they are in another segment."""
    calls = []

    def on_support(params, shared, episode, step):
        calls.append(step)
        return (params["w"] - episode.support.x).square().sum()

    def on_query(params, shared, episode):
        return params["w"].square().sum()

    gradient = outer.meta_gradient(
        on_support, on_query, inner.SGD(0.1), outer.Stepwise(segment=segment), num_steps=3
    )
    batch = Batch(torch.ones(2))
    gradient(Meta({"w": torch.zeros(2)}, {}, {}), Episode(batch, batch), torch.tensor(0))
    assert len(calls) == count


def test_a_segmented_step_compiles():
    episodes, keys = sine_episodes(3), torch.arange(3)
    eager, compiled = (
        build(RULES[0], outer.Stepwise(segment=2), compile=how, num_steps=3).estimate(
            episodes, keys
        )
        for how in (False, {"backend": "eager"})
    )
    assert relative_difference(eager.gradient, compiled.gradient) < 1e-12


def test_memory_grows_with_the_square_root_of_the_steps():
    tasks = data.Sinusoid(5, 5).sample(4)

    def peak(num_steps, segment):
        learner = outer.MAML(
            models.mlp(1, [64, 64], 1),
            F.mse_loss,
            inner.SGD(0.001),
            num_steps=num_steps,
            estimator=outer.Stepwise(segment=segment),
        )
        learner.estimate(tasks)
        return testing.peak_live_bytes(lambda: learner.estimate(tasks))

    copy = 4 * sum(
        param.numel() * param.element_size() for param in models.mlp(1, [64, 64], 1).parameters()
    )
    assert peak(16, 4) - peak(4, 2) < 4.5 * copy  # from 2 starts and 2 steps to 4 and 4
    assert peak(16, None) - peak(16, 4) > 7.5 * copy


@pytest.mark.parametrize(
    ("segment", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_bad_input(segment, error):
    with pytest.raises(error, match="segment must be"):
        outer.Stepwise(segment=segment)
