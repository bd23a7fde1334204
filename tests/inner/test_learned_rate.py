import pytest
import torch

from metalearn import inner
from tests.cases import relative_difference, sine_learner


@pytest.mark.parametrize("per", ["scalar", "tensor", "parameter"])
@pytest.mark.parametrize("num_steps", [None, 1, 3, 7])
def test_learned_rates_start_as_the_rule(per, num_steps, episodes):
    learned = sine_learner(inner.LearnedRate(inner.SGD(0.05), per, num_steps)).adapt(
        episodes.support
    )
    plain = sine_learner(inner.SGD(0.05)).adapt(episodes.support)
    assert relative_difference(learned.params, plain.params) < 1e-12


def test_shapes_of_learned_rates():
    params = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    shapes = {
        ("scalar", None): (),
        ("scalar", 5): (5,),
        ("tensor", None): {"a": (), "b": ()},
        ("tensor", 5): {"a": (5,), "b": (5,)},
        ("parameter", None): {"a": (2, 3), "b": (4,)},
        ("parameter", 5): {"a": (5, 2, 3), "b": (5, 4)},
    }
    for (per, num_steps), expected in shapes.items():
        rate = inner.LearnedRate(inner.SGD(0.1), per, num_steps).init_meta(params)["rate"]
        assert (
            rate.shape if per == "scalar" else {n: r.shape for n, r in rate.items()}
        ) == expected


def test_the_last_rate_holds():
    rule = inner.LearnedRate(inner.SGD(0.1), num_steps=2)
    params = {"w": torch.zeros(1)}
    meta = {"rate": torch.tensor([1.0, 2.0]), "rule": {}}
    used = [
        -rule.update(meta, {"w": torch.ones(1)}, (), params, torch.tensor(0.0), step)[0]["w"].item()
        for step in range(4)
    ]
    assert used == [1, 2, 2, 2]


BAD = [
    (lambda: inner.LearnedRate(0.1), TypeError, "LearnedRate(SGD(lr=0.01), ...)"),
    (
        lambda: inner.LearnedRate(inner.SGD(0.1), per="tensors"),
        ValueError,
        "Did you mean 'tensor'?",
    ),
    (lambda: inner.LearnedRate(inner.SGD(0.1), num_steps=0), ValueError, "at least 1; got 0"),
    (lambda: inner.MetaSGD(0.0), ValueError, "must be positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
