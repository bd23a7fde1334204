import pytest
import torch

from metalearn import inner, outer
from tests.cases import assert_equals_torch, sine_learner


class Decayed:
    """Steps of an optimizer, after each of which the parameters lose a fraction of what they were
    before it."""

    def __init__(self, optimizer, decay):
        self.optimizer, self.decay, self.zero_grad = optimizer, decay, optimizer.zero_grad

    @torch.no_grad()
    def step(self):
        params = self.optimizer.param_groups[0]["params"]
        before = [param.clone() for param in params]
        self.optimizer.step()
        for param, old in zip(params, before, strict=True):
            param -= self.decay * old


PAIRS = [
    (
        inner.WeightDecay(inner.Adam(0.05), 0.05 * 0.7),
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.7),
    ),
    (
        inner.WeightDecay(inner.Momentum(0.05, 0.8), 0.1),
        lambda p: Decayed(torch.optim.SGD(p, 0.05, momentum=0.8), 0.1),
    ),
    (
        inner.LearnedRate(inner.WeightDecay(inner.SGD(0.05), 0.1)),
        lambda p: Decayed(torch.optim.SGD(p, 0.05), 0.1),
    ),
    (
        inner.WeightDecay(inner.LearnedRate(inner.SGD(0.05)), 0.1),
        lambda p: Decayed(torch.optim.SGD(p, 0.05), 0.1),
    ),
    (
        inner.WeightDecay(inner.SGD(0.05), 0),
        lambda p: torch.optim.SGD(p, 0.05),
    ),
]


@pytest.mark.parametrize(
    ("rule", "optimizer"), PAIRS, ids=lambda value: "" if callable(value) else str(value)
)
def test_equals_torch_step_by_step(rule, optimizer, episodes):
    assert_equals_torch(rule, optimizer, episodes)


def test_it_is_refused_where_the_rule_must_rest():
    with pytest.raises(ValueError, match="must rest where the gradient is zero"):
        sine_learner(inner.WeightDecay(inner.SGD(0.1), 0.1), estimator=outer.Implicit(1.0))


def test_bad_input():
    message = r"WeightDecay's decay must be from 0 to 1; got 2. Write WeightDecay\(SGD\(lr=0.1\)"
    with pytest.raises(ValueError, match=message):
        inner.WeightDecay(inner.SGD(0.1), 2)
    with pytest.raises(TypeError, match=r"Pass one to wrap: WeightDecay\(SGD"):
        inner.WeightDecay(0.1, 0.1)
