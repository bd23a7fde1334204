from dataclasses import dataclass

import pytest
import torch

from metalearn import inner, testing
from tests.cases import relative_difference, sine_learner


@dataclass(frozen=True)
class Scaled(inner.GradientTransform):
    """A transform of one's own: a learned factor for every tensor."""

    def init_weights(self, name, param):
        return param.new_ones(())

    def transform(self, weights, grad):
        return weights * grad


def test_two_methods_make_a_rule(episodes):
    testing.check_update_rule(Scaled(0.1), compile=False)
    ours, plain = (
        sine_learner(rule).adapt(episodes.support).params for rule in (Scaled(0.1), inner.SGD(0.1))
    )
    assert relative_difference(ours, plain) < 1e-12


def test_the_rate_splits_off():
    assert Scaled(0.1).split_rate() == (0.1, Scaled(1.0))
    learner = sine_learner(inner.LearnedRate(Scaled(0.1)))
    assert learner.meta.rule["rate"].item() == pytest.approx(0.1)
    assert torch.equal(learner.meta.rule["rule"]["0.bias"], torch.ones((), dtype=torch.float64))


def test_bad_rate():
    with pytest.raises(ValueError, match="Scaled's lr must be positive and finite; got -1"):
        Scaled(-1)
