import pytest
import torch
import torch.nn as nn

from metalearn import models


def num_parameters(model):
    return sum(param.numel() for param in model.parameters())


def test_mlp_is_the_sine_papers_network():
    assert num_parameters(models.mlp(1, [40, 40], 1)) == 1761
    kinds = [type(layer) for layer in models.mlp(1, [40, 40], 1)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_linear_network_is_linear():
    network = models.linear_network(100, [64, 64, 64], 1)
    x, y = torch.randn(2, 7, 100)
    torch.testing.assert_close(network(x) + network(y), network(x + y))
    assert num_parameters(network) == 100 * 64 + 2 * 64 * 64 + 64
    assert num_parameters(models.linear_network(100, [], 1, bias=True)) == 101


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
    ],
)
def test_conv4_has_the_papers_parameter_counts(arguments, options, count):
    assert num_parameters(models.conv4(*arguments, **options)) == count


def test_batch_statistics_replace_running_ones():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.InstanceNorm2d(2, track_running_stats=True))
    assert models.running_statistics(model) == ["1", "2"]
    assert not models.uses_batch_statistics(model.eval())
    assert models.use_batch_statistics(model) is model
    assert models.running_statistics(model) == []
    assert models.uses_batch_statistics(model)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(model(x), model.train()(x))
    assert not any("running" in name for name in model.state_dict())


def test_layers_without_a_batch_do_not_use_its_statistics():
    assert not models.uses_batch_statistics(nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3)))


BAD = [
    (lambda: models.mlp(1, 40, 1), TypeError, "mlp(1, [40, 40], 1)"),
    (lambda: models.mlp(1, [0], 1), ValueError, "at least 1; got 0"),
    (lambda: models.mlp(1.0, [4], 1), TypeError, "must be an int; got 1.0"),
    (lambda: models.linear_network(1, [4], -1), ValueError, "linear_network's widths"),
    (lambda: models.conv4(1, 5, num_layers=5), ValueError, "num_layers must be one of [1, 2, 3, 4]; got 5"),
    (lambda: models.conv4(1, 5, downsample="strides"), ValueError, "Did you mean 'stride'?"),
    (lambda: models.conv4(1, 5, image_size=8, downsample="max_pool"), ValueError, "num_layers=3"),
    (lambda: models.conv4(1, 5, batch_statistics="running"), ValueError, "['transductive']"),
    (lambda: models.conv4(0, 5), ValueError, "conv4's in_channels"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
