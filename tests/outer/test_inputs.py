"""Inputs that are no plain tensors: what is refused says what to pass, and that works."""

from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import evaluate, models, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference
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
    [
        (BatchEncoding, dict, "Make it a dict: dict(encoding)."),
        (Inputs, vars, "Make it a dict: vars(inputs)."),
    ],
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
        assert (
            "'input': Tensor (3, 5, 1000) of" in message
            or "input=Tensor (3, 5, 1000) of" in message
        )
        assert message.endswith(fix)
        assert "0." not in message
    assert made(of(as_dict(x))).isfinite()
    with pytest.raises(ValueError, match=r"Tensor \(3, 5, 1000\) of"):
        made.adapt(of(as_dict(x)).support)(x)


pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "Sparse CS. tensor support is in beta",
        "Sparse invariant checks",
        "There is a performance drop",
    )
]
LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
LOOPS = [
    {"batching": "loop"},
    {"chunk_size": 1},
    {"batching": "loop", "support_batches": 2},
    {"batching": "loop", "estimator": outer.Stepwise()},
]


class Product(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.weight, self.product = nn.Parameter(torch.ones(4, 1, dtype=torch.float64)), product

    def forward(self, x):
        return self.product(x, self.weight)


def sparse_and_dense(layout):
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    x[..., 1] = 0
    y = torch.randn(3, 6, 1, dtype=torch.float64)
    return of(x.to_sparse(layout=layout), y), of(x, y)


def assert_as_dense(product, layout, options):
    sparse, dense = sparse_and_dense(layout)
    made, expected = (learner(Product(each), **options) for each in (product, torch.matmul))
    one, other = made.estimate(sparse, keys()), expected.estimate(dense, keys())
    assert relative_difference(one.gradient, other.gradient) < 1e-12
    adapted, expected = made.adapt(sparse.support), expected.adapt(dense.support)
    torch.testing.assert_close(adapted(sparse.query.x), expected(dense.query.x))
    torch.testing.assert_close(adapted.loss(sparse.query), expected.loss(dense.query))
    torch.testing.assert_close(adapted[1](sparse.query.x[1]), expected[1](dense.query.x[1]))
    measured = evaluate(made, [sparse], num_tasks=2, metrics={"mse": F.mse_loss})
    torch.testing.assert_close(measured["mse"].values, expected.loss(dense.query)[:2])


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, *LOOPS], ids=str)
def test_sparse_inputs_in_all_ways_of_batching(options):
    assert_as_dense(torch.sparse.mm, torch.sparse_coo, options)


@pytest.mark.parametrize("options", LOOPS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "product", [torch.matmul, lambda x, w: F.linear(x, w.T), lambda x, w: x.to_dense() @ w]
)
def test_sparse_inputs_that_vmap_cannot_take_in_a_loop(product, layout, options):
    assert_as_dense(product, layout, options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_inputs_of_known_layers(layout):
    model = models.mlp(4, [3], 1).double()
    sparse, dense = sparse_and_dense(layout)
    one, other = (
        learner(model, batching="loop").estimate(each, keys()) for each in (sparse, dense)
    )
    assert relative_difference(one.gradient, other.gradient) < 1e-12
    with pytest.raises(RuntimeError) as raised:
        learner(model)(sparse)
    assert 'batching="loop"' in raised.value.__notes__[0]
