from dataclasses import dataclass

import pytest

from metalearn import inner
from tests.cases import relative_difference, sine_learner


@dataclass(frozen=True)
class Negated(inner.Wrapper):
    """A wrapper of one's own: gradient ascent."""

    def update(self, meta, grads, state, params, loss, step):
        updates, state = self.rule.update(meta, grads, state, params, loss, step)
        return {name: -update for name, update in updates.items()}, state


@pytest.mark.parametrize(
    "rule", [inner.MetaSGD(0.05), inner.LSTM(hidden_size=3), inner.Momentum(0.05)], ids=str
)
def test_what_a_wrapper_does_not_define_is_the_rules(rule, episodes):
    learner = sine_learner(Negated(Negated(rule)))
    plain = sine_learner(rule)
    assert list(dict(learner.rule.named_parameters())) == list(dict(plain.rule.named_parameters()))
    plain.load_state_dict(learner.state_dict())
    ours, theirs = (each.adapt(episodes.support).params for each in (learner, plain))
    assert relative_difference(ours, theirs) == 0


def test_the_rate_stays_inside_unless_the_wrapper_says_that_it_is_a_factor():
    assert Negated(inner.SGD(0.1)).split_rate() == (1.0, Negated(inner.SGD(0.1)))
    for wrap in (lambda rule: inner.Clipped(rule, norm=1.0), inner.Masked):
        assert wrap(inner.SGD(0.1)).split_rate() == (0.1, wrap(inner.SGD(1.0)))


@pytest.mark.parametrize(
    "wrap", [inner.Masked, inner.LearnedRate, lambda rule: inner.SelfAdapting(rule, lr=0.1)]
)
def test_what_adapts_itself_is_outermost(wrap):
    inside = inner.SelfAdapting(inner.KroneckerLinear(0.1), lr=0.1)
    with pytest.raises(
        ValueError, match=r"SelfAdapting must be outermost; got it inside \w+. Write SelfAdapting\("
    ):
        wrap(inside)


def test_it_wraps_rules_only():
    with pytest.raises(
        TypeError,
        match=r"Negated's rule must be an update rule; got 0.1. Pass one to wrap: Negated\(",
    ):
        Negated(0.1)
