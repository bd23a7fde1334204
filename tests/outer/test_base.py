"""The golden gradients by hand of Huisman (2021), appendix B, and the pure function behind the
learner."""

import pickle

import pytest
import torch

from metalearn import inner, outer
from metalearn.types import Batch, Carry, Episode, Meta, Problem
from tests.cases import relative_difference, sine_learner


def squared_error(params, shared, batch):
    return (params["w"] * batch.x - batch.y) ** 2


def support_loss(params, shared, episode, step):
    return squared_error(params, shared, episode.support)


def query_loss(params, shared, episode):
    return squared_error(params, shared, episode.query)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


GOLDEN = [
    (2, -27.61566208, 720.408576),
    (1, -32.6272, 751.730688),
]


@pytest.mark.parametrize("estimator", [outer.Unrolled, outer.Stepwise])
@pytest.mark.parametrize(("order", "to_start", "to_rate"), GOLDEN)
def test_golden_gradients(estimator, order, to_start, to_rate):
    rule = inner.LearnedRate(inner.SGD(lr=0.01))
    gradient = outer.meta_gradient(support_loss, query_loss, rule, estimator(order), num_steps=2)
    init = {"w": scalar(1.0)}
    meta = Meta(init, {}, rule.init_meta(init))
    episode = Episode(Batch(scalar(2.0), scalar(5.0)), Batch(scalar(4.0), scalar(9.0)))
    estimate = gradient(meta, episode, torch.tensor(0))
    assert estimate.gradient.init["w"].item() == pytest.approx(to_start, rel=1e-8)
    # The paper's m multiplies the gradient that is added, so that the rate is -m.
    assert -estimate.gradient.rule["rate"].item() == pytest.approx(to_rate, rel=1e-8)
    assert estimate.loss.item() == pytest.approx((4 * 1.2304 - 9) ** 2, rel=1e-12)


def test_adapted_parameters_by_hand():
    rule = inner.SGD(lr=0.01)
    problem = Problem(support_loss, query_loss, rule, 1)
    episode = Episode(Batch(scalar(2.0), scalar(5.0)), Batch(scalar(4.0), scalar(9.0)))
    meta = Meta({"w": scalar(1.0)}, {}, {})
    estimator = outer.Unrolled()
    one = estimator.adapt(problem, meta, episode.support, torch.tensor(0), 1)
    two = estimator.adapt(problem, meta, episode.support, torch.tensor(0), 2)
    assert one.params["w"].item() == pytest.approx(1.12, rel=1e-12)
    assert two.params["w"].item() == pytest.approx(1.2304, rel=1e-12)


def test_carry_is_passed_on():
    class Counting(outer.Unrolled):
        def init_carry(self, problem, meta, episode, key):
            return Carry({"count": torch.zeros(())})

        def __call__(self, problem, meta, episode, key, carry):
            estimate = super().__call__(problem, meta, episode, key, carry)
            return estimate._replace(carry=Carry({"count": carry.common["count"] + 1}))

    gradient = outer.meta_gradient(
        support_loss, query_loss, inner.SGD(0.01), Counting(), num_steps=1
    )
    episode = Episode(Batch(scalar(2.0), scalar(5.0)), Batch(scalar(4.0), scalar(9.0)))
    meta = Meta({"w": scalar(1.0)}, {}, {})
    first = gradient(meta, episode, torch.tensor(0))
    second = gradient(meta, episode, torch.tensor(0), first.carry)
    assert second.carry.common["count"] == 2


def test_refuses_no_steps():
    with pytest.raises(ValueError, match="num_steps must be at least 1; got 0"):
        outer.meta_gradient(
            support_loss, query_loss, inner.SGD(0.01), outer.Unrolled(), num_steps=0
        )


@pytest.mark.parametrize("estimator", [outer.Unrolled(1), outer.Stepwise(truncate=2)])
def test_estimators_are_values(estimator):
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    assert hash(estimator) == hash(pickle.loads(pickle.dumps(estimator)))


@pytest.mark.parametrize("kind", [outer.Unrolled, outer.Stepwise])
def test_truncation_at_as_many_steps_as_there_are_is_none(kind, episodes):
    exact, truncated = (sine_learner(estimator=kind(truncate=truncate)) for truncate in (None, 9))
    gradients = [learner.estimate(episodes).gradient for learner in (exact, truncated)]
    assert relative_difference(*gradients) < 1e-12
