"""Pure functions."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st

from metalearn import functional, models
from metalearn.types import Batch, Indexed
from tests.properties.entry import Entry
from tests.properties.strategies import BOOLS, COUNTS, FLOATING, GENERATORS, KEYS, SHAPES, tensors

STREAMS = st.integers(0, 10)
HUGE = st.sampled_from([2**31, 2**63, 2**70])
LOGITS = tensors(4, 3, dtype=torch.float32)
LABELS = tensors(4, dtype=torch.int64, low=0, high=3)
WEIGHTS = st.one_of(st.none(), tensors(4, dtype=torch.float32, low=0.5))
CLASSIFIED = {
    "output": LOGITS,
    "target": LABELS,
    "weight": WEIGHTS,
    "ignore_index": st.sampled_from([-100, 255, 1]),
}
WRONG = {
    "output": st.sampled_from(
        [
            torch.zeros(3),
            torch.zeros(4, 0),
            torch.zeros(5, 3),
            torch.zeros(4, 3, 2),
            torch.zeros(0, 3),
        ]
    ),
    "target": st.sampled_from([torch.zeros(5).long(), torch.zeros(4, 3), torch.zeros(4, 1).long()]),
    "ignore_index": st.sampled_from([2**63, -(2**70)]),
    "weight": st.sampled_from(
        [torch.zeros(4), torch.ones(5), torch.ones(4, 1), -torch.ones(4), ()]
    ),
}
KEY = {"key": KEYS, "shape": SHAPES, "stream": STREAMS, "dtype": st.one_of(st.none(), FLOATING)}
WRONG_KEY = {
    "key": st.sampled_from(
        [
            torch.tensor(7, dtype=torch.int32),
            torch.zeros(5).long(),
            torch.tensor(-1),
            torch.tensor(2**62),
        ]
    ),
    "shape": st.sampled_from([(-1,), (2.0,), 3, "ab", (True,), torch.Size([2]), [2, 1]]),
    "stream": HUGE,
    "dtype": st.sampled_from([torch.int64, torch.complex64, float, "float32"]),
}


def drawn(result, /, key, shape, dtype, **_):
    assert result.shape == torch.broadcast_shapes(key.shape, shape)
    assert result.dtype == (dtype or torch.float32)
    assert result.isfinite().all()


def scalar(result, /, **_):
    assert result.shape == ()


def model_loss(model, criterion, name):
    loss = functional.ModelLoss(model, criterion, name)
    return loss({}, {}, Batch(torch.zeros(4, 1), torch.zeros(4, 1)))


def sees(batches, /, **_):
    part = batches.of_step(Batch(torch.zeros(12, 1), torch.zeros(12)), torch.tensor(3), step=1)
    assert len(part.x) == len(part.y) > 0


def sees_rows(batches, /):
    rows = torch.arange(6).reshape(3, 2)
    x = rows if isinstance(batches, functional.GivenBatches) else Indexed(torch.arange(6), rows)
    assert batches.of_step(Batch(x), None, step=1).x.tolist() == [2, 3]


def cube(x, scale):
    return scale * (x**3).sum()


def gradient_of_cube(gradient, /, argnums, **_):
    x, scale = torch.tensor([1.0, -2.0]), torch.tensor(2.0)
    expected = torch.tensor([6.0, 24.0]), torch.tensor(-7.0)
    got, value = gradient(x, scale)
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    for index, part in zip(numbers, got if isinstance(argnums, tuple) else [got], strict=True):
        assert torch.equal(part, expected[index])
    assert value == -14


ENTRIES = {
    "uniform": Entry(functional.uniform, KEY, drawn, WRONG_KEY),
    "normal": Entry(functional.normal, KEY, drawn, WRONG_KEY),
    "derive_key": Entry(
        functional.derive_key,
        {"key": KEYS, "index": STREAMS},
        lambda key, /, **_: functional.uniform(key, key.shape),
        {"key": WRONG_KEY["key"], "index": HUGE},
    ),
    "draw_keys": Entry(
        functional.draw_keys,
        {"num_tasks": COUNTS, "generator": GENERATORS, "device": st.sampled_from([None, "cpu"])},
        lambda keys, /, num_tasks, **_: functional.uniform(keys, (num_tasks,)),
        {"device": st.sampled_from(["gpu", "", 3.5])},
    ),
    "safe_sqrt": Entry(
        functional.safe_sqrt, {"x": tensors(4, low=0)}, lambda result, /, x: result.shape == x.shape
    ),
    "cross_entropy": Entry(functional.cross_entropy, CLASSIFIED, scalar, WRONG),
    "own_loss": Entry(
        functional.own_loss,
        {"output": st.builds(lambda loss: {"loss": loss}, tensors()), "target": st.just(())},
        scalar,
    ),
    "accuracy": Entry(functional.accuracy, CLASSIFIED, scalar, WRONG),
    "call_copy": Entry(
        functional.call_copy,
        {
            "module": st.builds(lambda: nn.Linear(1, 1)),
            "tensors": st.sampled_from([{}, {"weight": torch.ones(1, 1)}]),
        },
        lambda output, /, **_: output.shape == (2, 1),
        {
            "tensors": st.sampled_from(
                [{"wieght": torch.ones(1, 1)}, {"weight": 1.0}, [torch.ones(1, 1)]]
            )
        },
        {
            "args": st.sampled_from([torch.ones(2, 1), (torch.ones(2, 1),)]),
            "kwargs": st.sampled_from([None, {}]),
        },
    ),
    "grad_and_value": Entry(
        functional.grad_and_value,
        {"function": st.just(cube), "argnums": st.sampled_from([0, 1, -1, (0, 1), (1, 0), (-2,)])},
        gradient_of_cube,
        {"argnums": st.sampled_from([2, -3, (0, 2), (), (0, True), [0, 1], "x"])},
    ),
    "vjp": Entry(
        lambda function, x: functional.vjp(function, x),
        {"function": st.just(torch.sin), "x": tensors(3, low=-1)},
        lambda result, /, x, **_: torch.testing.assert_close(
            result[1](torch.ones_like(x))[0], torch.cos(x)
        ),
    ),
    "ModelLoss": Entry(
        model_loss,
        {
            "model": st.builds(lambda: models.mlp(1, [2], 1)),
            "criterion": st.sampled_from([F.mse_loss, nn.MSELoss()]),
            "name": st.just("criterion"),
        },
        scalar,
        functions=frozenset({"criterion", "model"}),
    ),
    "ModuleLoss": Entry(
        functional.ModuleLoss, {"module": st.builds(nn.MSELoss), "name": st.just("query_loss")}
    ),
    "OnSupport": Entry(
        functional.OnSupport,
        {
            "loss": st.builds(functional.ModelLoss, st.just(nn.Linear(1, 1)), st.just(F.mse_loss)),
            "batches": st.sampled_from(
                [
                    None,
                    functional.DealtBatches(2),
                    functional.SampledBatches(2),
                    functional.GivenBatches(),
                ]
            ),
        },
    ),
    "DealtBatches": Entry(functional.DealtBatches, {"count": COUNTS}, sees),
    "SampledBatches": Entry(
        functional.SampledBatches, {"size": COUNTS, "replacement": BOOLS}, sees
    ),
    "ShuffledBatches": Entry(functional.ShuffledBatches, {"size": COUNTS}, sees),
    "GivenBatches": Entry(functional.GivenBatches, {}, sees_rows),
    "IndexedBatches": Entry(functional.IndexedBatches, {}, sees_rows),
    "OnQuery": Entry(
        functional.OnQuery,
        {"loss": st.builds(functional.ModelLoss, st.just(nn.Linear(1, 1)), st.just(F.mse_loss))},
    ),
}

EXCLUDED = {"SupportBatches": "abstract"}
