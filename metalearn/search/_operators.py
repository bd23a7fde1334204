"""A block's operators by name: modules that keep an image's channels and size."""

from collections.abc import Callable

import torch.nn as nn


def convolution(size: int, dilation: int = 1) -> Callable[[int], nn.Module]:
    """Return a builder of one convolution."""
    return _between(lambda channels: (_same(channels, (size, size), dilation),))


def separable(size: int) -> Callable[[int], nn.Module]:
    """Return a builder of a depthwise and a pointwise convolution."""
    return _between(lambda channels: (_same(channels, (size, size), 1, channels), _same(channels)))


def factorised(size: int) -> Callable[[int], nn.Module]:
    """Return a builder of a convolution along rows and one along columns."""
    return _between(lambda channels: (_same(channels, (1, size)), _same(channels, (size, 1))))


def _between(convolutions: Callable[[int], tuple[nn.Conv2d, ...]]) -> Callable[[int], nn.Module]:
    """Return a builder of convolutions between a ReLU and batch normalisation."""

    def build(channels: int) -> nn.Module:
        return nn.Sequential(nn.ReLU(), *convolutions(channels), nn.BatchNorm2d(channels))

    return build


def _same(
    channels: int, kernel: tuple[int, int] = (1, 1), dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    # no bias: the following batch normalisation would remove it
    padding = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    return nn.Conv2d(
        channels, channels, kernel, padding=padding, dilation=dilation, groups=groups, bias=False
    )


OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    "identity": lambda channels: nn.Identity(),
    "sep_conv_3x3": separable(3),
    "sep_conv_5x5": separable(5),
    "sep_conv_7x7": separable(7),
    "conv_1x7_7x1": factorised(7),
    "dil_conv_3x3": convolution(3, dilation=2),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1),
    "max_pool_3x3": lambda channels: nn.MaxPool2d(3, stride=1, padding=1),
    "conv_3x3": convolution(3),
}
"""Operators by name: functions of the number of channels. The first eight are PNAS's; add more
under new names."""
