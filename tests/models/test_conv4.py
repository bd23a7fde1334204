import pytest
import torch

from metalearn import models


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("image_size", [28, 32])
def test_conv4_shapes(downsample, num_layers, image_size):
    options = {"num_filters": 8, "num_layers": num_layers, "image_size": image_size}
    model = models.conv4(3, 5, downsample=downsample, **options)
    assert model(torch.zeros(6, 3, image_size, image_size)).shape == (6, 5)


@pytest.mark.parametrize(
    ("arguments", "options", "count"),
    [
        ((1, 10), {"num_filters": 64}, 112_586),
        ((1, 10), {"num_filters": 64, "num_layers": 2}, 38_474),
        ((3, 10), {"num_filters": 32, "image_size": 32}, 29_226),
        ((3, 10), {"num_filters": 32, "image_size": 32, "num_layers": 2}, 10_602),
        ((3, 10), {"num_filters": 32, "image_size": 84, "downsample": "max_pool"}, 36_906),
        (
            (3, 10),
            {"num_filters": 32, "image_size": 84, "downsample": "max_pool", "num_layers": 2},
            18_282,
        ),
    ],
)
def test_conv4_has_the_papers_parameter_counts(arguments, options, count):
    assert sum(param.numel() for param in models.conv4(*arguments, **options).parameters()) == count


BAD = [
    (
        lambda: models.conv4(1, 5, num_layers=5),
        ValueError,
        "num_layers must be one of [1, 2, 3, 4]; got 5",
    ),
    (lambda: models.conv4(1, 5, downsample="strides"), ValueError, "Did you mean 'stride'?"),
    (
        lambda: models.conv4(1, 5, image_size=8, downsample="max_pool"),
        ValueError,
        "image_size must be at least 16; got 8",
    ),
    (
        lambda: models.conv4(1, 5, batch_statistics="running"),
        ValueError,
        "['transductive', 'support', 'per_step', 'frozen']",
    ),
    (lambda: models.conv4(1, 5, batch_statistics="per_step"), TypeError, "num_steps=5"),
    (lambda: models.conv4(0, 5), ValueError, "conv4's in_channels"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
