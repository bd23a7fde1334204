"""Models, and batch normalisation."""

import torch
import torch.nn as nn
from hypothesis import strategies as st

from metalearn import models
from tests.properties.entry import Entry
from tests.properties.strategies import BOOLS, COUNTS, POSITIVE, STATISTICS

HIDDEN = st.lists(COUNTS, max_size=2)
WRONG_HIDDEN = {"hidden": st.sampled_from([[0], [2.0], (True,), "23", [[2]], {2: 3}, [None]])}
WRONG_MODELS = {
    "model": st.builds(lambda: nn.Sequential(nn.LazyBatchNorm1d()))
    | st.builds(lambda: nn.LazyInstanceNorm1d(track_running_stats=True))
    | st.just(nn.BatchNorm1d),
    "source": st.sampled_from(["per_step", "Support", ["support"]]),
}
WITH_NORM = st.builds(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
NORM = {"num_features": st.just(3), "eps": POSITIVE, "affine": BOOLS}


def outputs(model, /, in_features, out_features, **_):
    assert model(torch.zeros(5, in_features)).shape == (5, out_features)


def logits(image_size):
    def check(model, /, in_channels, num_classes, batch_statistics, **more):
        result = model(torch.rand(2, in_channels, *2 * (more.get("image_size", image_size),)))
        assert result.shape == (2, num_classes)
        assert result.isfinite().all()

    return check


def normalised(norm, /, num_features, **_):
    assert norm(torch.rand(4, num_features)).isfinite().all()


ENTRIES = {
    "mlp": Entry(
        models.mlp,
        {"in_features": COUNTS, "hidden": HIDDEN, "out_features": COUNTS},
        outputs,
        WRONG_HIDDEN,
    ),
    "linear_network": Entry(
        models.linear_network,
        {"in_features": COUNTS, "hidden": HIDDEN, "out_features": COUNTS, "bias": BOOLS},
        outputs,
        WRONG_HIDDEN,
    ),
    "init_": Entry(
        models.init_,
        {
            "model": st.builds(lambda: models.mlp(1, [3], 1)),
            "weights": st.sampled_from([nn.init.xavier_uniform_, nn.init.zeros_]),
            "biases": st.sampled_from([None, nn.init.zeros_]),
        },
        lambda model, /, biases, **_: biases is None or not model[0].bias.any(),
        functions=frozenset({"weights", "biases"}),
    ),
    "collapse": Entry(
        models.collapse,
        {"model": st.builds(lambda: models.linear_network(2, [3], 1))},
        lambda collapsed, /, **_: len(collapsed) == 1,
    ),
    "split_parameters": Entry(
        models.split_parameters,
        {
            "model": st.builds(lambda: models.mlp(1, [3], 1)),
            "masks": st.sampled_from([{"0.weight": torch.tensor([[True], [False], [False]])}]),
        },
        lambda model, /, **_: model(torch.zeros(2, 1)),
        {
            "masks": st.sampled_from(
                [
                    {},
                    {"0": 3},
                    {"0.weight": torch.ones(3, 1)},
                    {"0.bias": torch.ones(2) > 0},
                    {3: 3},
                ]
            )
        },
    ),
    "conv4": Entry(
        models.conv4,
        {
            "in_channels": COUNTS,
            "num_classes": COUNTS,
            "num_filters": COUNTS,
            "num_layers": COUNTS,
            "image_size": st.sampled_from([16, 28]),
            "downsample": st.sampled_from(["stride", "max_pool"]),
            "batch_statistics": STATISTICS,
        },
        logits(28),
    ),
    "resnet12": Entry(
        models.resnet12,
        {
            "in_channels": COUNTS,
            "num_classes": COUNTS,
            "widths": st.lists(COUNTS, min_size=1, max_size=3),
            "batch_statistics": STATISTICS,
            "num_steps": st.sampled_from([None, 2]),
        },
        logits(8),
        {"widths": st.sampled_from([[], [0], "12", (2.0,)])},
        always=False,
    ),
    "use_batch_statistics": Entry(
        models.use_batch_statistics,
        {"model": WITH_NORM, "source": STATISTICS, "num_steps": st.sampled_from([None, 2])},
        wrong=WRONG_MODELS,
    ),
    "batch_statistics": Entry(models.batch_statistics, {"model": WITH_NORM}, wrong=WRONG_MODELS),
    "running_statistics": Entry(
        models.running_statistics, {"model": WITH_NORM}, wrong=WRONG_MODELS
    ),
    "BatchNorm": Entry(models.BatchNorm, NORM, normalised),
    "SupportNorm": Entry(models.SupportNorm, NORM, normalised),
    "FrozenNorm": Entry(models.FrozenNorm, NORM, normalised),
    "PerStepNorm": Entry(
        models.PerStepNorm, NORM | {"num_steps": COUNTS, "momentum": st.floats(0.1, 1)}, normalised
    ),
}

EXCLUDED: dict[str, str] = {}
