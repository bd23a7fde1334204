"""Every rule through the contract suite."""

import pytest

from metalearn import inner, testing
from tests.cases import RandomMask

RULES = [
    inner.SGD(0.1),
    inner.MetaSGD(0.1),
    inner.LearnedRate(inner.SGD(0.1)),
    inner.LearnedRate(inner.SGD(0.1), per="tensor", num_steps=2),
    inner.LearnedRate(inner.SGD(0.1), per="parameter", num_steps=3),
    inner.LearnedRate(RandomMask(0.1)),
    inner.Clipped(inner.SGD(0.1), value=0.1),
    inner.Clipped(inner.MetaSGD(0.1), norm=0.2),
    inner.LearnedRate(inner.Clipped(inner.SGD(0.1), norm=0.2)),
    RandomMask(0.1),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_contract(rule):
    testing.check_update_rule(rule)
