from dataclasses import dataclass

import pytest
import torch

from metalearn import inner
from metalearn._tree import tree_leaves, tree_map
from metalearn.analysis._frozen import frozen, select_fast
from tests.cases import keys, sine_learner

RULES = [
    inner.SGD(0.01),
    inner.Clipped(inner.LearnedRate(inner.Momentum(0.01), per="tensor"), value=1.0),
    inner.SelfAdapting(inner.KroneckerLinear(lr=0.01), lr=0.01),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_frozen_parameters_stay_and_the_learner_is_left_alone(rule, batching, episodes):
    learner = sine_learner(rule, batching=batching)
    before = tree_map(lambda leaf: leaf.detach().clone(), learner.meta)
    free = learner.adapt(episodes.support, keys=keys())
    held = frozen(learner, ["2.weight", "4.bias"]).adapt(episodes.support, keys=keys())
    for name, start in before.init.items():
        stayed = name in ("2.weight", "4.bias")
        assert (held.params[name] == start).all() == stayed
        assert not (free.params[name] == start).all()
    again = learner.adapt(episodes.support, keys=keys())
    assert all(torch.equal(again.params[name], param) for name, param in free.params.items())
    for left, right in zip(tree_leaves(before), tree_leaves(learner.meta), strict=True):
        assert torch.equal(left, right)


def test_one_step_moves_the_others_as_before(episodes):
    learner = sine_learner()
    free = learner.adapt(episodes.support, 1)
    held = frozen(learner, ["0.weight"]).adapt(episodes.support, 1)
    assert torch.equal(held.params["4.weight"], free.params["4.weight"])


def test_nothing_frozen_is_the_learner(episodes):
    learner = sine_learner()
    held = frozen(learner, []).adapt(episodes.support)
    for name, param in learner.adapt(episodes.support).params.items():
        torch.testing.assert_close(param, held.params[name], rtol=1e-14, atol=1e-16)


def test_selects_fast_parameters_alone():
    learner = sine_learner(fast="4")
    assert select_fast("layers", "4", learner) == ["4.weight", "4.bias"]
    with pytest.raises(ValueError, match="layers must match a trainable parameter of"):
        select_fast("layers", "0", learner)


@dataclass(frozen=True)
class Detached(inner.SGD):
    """Gradient descent that takes its gradients as values."""

    as_values = frozenset({"grads"})


def test_a_frozen_rule_takes_the_same_as_values():
    assert frozen(sine_learner(Detached(0.1)), ["0.bias"]).problem.rule.as_values == {"grads"}
