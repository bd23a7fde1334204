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


BAD = [
    (lambda: models.mlp(1, 40, 1), TypeError, "mlp(1, [40, 40], 1)"),
    (lambda: models.mlp(1, [0], 1), ValueError, "at least 1; got 0"),
    (lambda: models.mlp(1.0, [4], 1), TypeError, "must be an int; got 1.0"),
    (lambda: models.linear_network(1, [4], -1), ValueError, "linear_network's widths"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
