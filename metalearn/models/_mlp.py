"""Multi-layer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn as nn

from metalearn._brief import brief
from metalearn._checks import check_bool, check_count, mistyped


def mlp(in_features: int, hidden: Sequence[int], out_features: int) -> nn.Sequential:
    """Return a multi-layer perceptron with ReLU between its layers.

    Args:
        in_features: Size of an input, at least 1.
        hidden: Widths of the hidden layers, each at least 1; [] gives a linear model.
        out_features: Size of an output, at least 1.

    Returns:
        A module from `[..., in_features]` to `[..., out_features]`, with PyTorch's default
        initialisation.

    Raises:
        TypeError: If a width is not an int.
        ValueError: If a width is below 1.

    >>> sum(p.numel() for p in mlp(1, [40, 40], 1).parameters())
    1761
    """
    layers: list[nn.Module] = []
    for layer in _linear_layers("mlp", in_features, hidden, out_features, bias=True):
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def linear_network(
    in_features: int, hidden: Sequence[int], out_features: int, *, bias: bool = False
) -> nn.Sequential:
    """Return linear layers with nothing between them: a linear model whose gradient descent is not.

    Args:
        in_features: Size of an input, at least 1.
        hidden: Widths of the hidden layers, each at least 1; [] gives logistic regression's model.
        out_features: Size of an output, at least 1.
        bias: Whether the layers have biases.

    Raises:
        TypeError: If a width is not an int, or `bias` not a bool.
        ValueError: If a width is below 1.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (section 3.2).
    """
    check_bool("linear_network's bias", bias)
    return nn.Sequential(*_linear_layers("linear_network", in_features, hidden, out_features, bias))


def _linear_layers(
    what: str, in_features: int, hidden: Sequence[int], out_features: int, bias: bool
) -> list[nn.Linear]:
    fix = f"Write {what}(1, [40, 40], 1), say."
    if isinstance(hidden, int | str) or not isinstance(hidden, Sequence):
        raise mistyped(f"{what}'s hidden", "be a list of widths", brief(hidden), fix)
    widths = [in_features, *hidden, out_features]
    for width in widths:
        check_count(f"{what}'s widths", width, fix=fix)
    return [nn.Linear(rows, columns, bias=bias) for rows, columns in pairwise(widths)]
