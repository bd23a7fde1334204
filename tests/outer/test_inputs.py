"""Inputs that are no plain tensors: what is refused says what to pass, and that works."""

from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn

from metalearn import evaluate
from metalearn.types import Batch, Episode
from tests.outer.cases import learner


class BatchEncoding(UserDict):
    """A mapping that is no dict, as tokenizers return."""


@dataclass
class Inputs:
    input: torch.Tensor


def of(x, y=None):
    y = torch.zeros(3, 5, 1) if y is None else y
    return Episode(Batch(x, y), Batch(x, y))


@pytest.mark.parametrize(
    ("kind", "as_dict", "fix"),
    [(BatchEncoding, dict, "Make it a dict: dict(encoding)."), (Inputs, vars, "Make it a dict: vars(inputs).")],
)
def test_a_mapping_that_is_no_dict(kind, as_dict, fix):
    x = kind(input=torch.zeros(3, 5, 1000))
    made = learner(nn.Linear(1000, 1))
    for call in (
        lambda: made(of(x)),
        lambda: made.adapt(of(x).support),
        lambda: evaluate(made, [of(x)], num_tasks=3),
    ):
        with pytest.raises(TypeError) as raised:
            call()
        message = str(raised.value)
        assert "'input': Tensor (3, 5, 1000) of" in message or "input=Tensor (3, 5, 1000) of" in message
        assert message.endswith(fix)
        assert "0." not in message
    assert made(of(as_dict(x))).isfinite()
    with pytest.raises(ValueError, match=r"Tensor \(3, 5, 1000\) of"):
        made.adapt(of(as_dict(x)).support)(x)
