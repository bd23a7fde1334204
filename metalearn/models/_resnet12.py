"""The residual network of the few-shot papers."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch.nn as nn
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_choice, check_count, mistyped
from metalearn.models._batch_statistics import BATCH_STATISTICS, use_batch_statistics

WIDTHS = (64, 160, 320, 640)


def resnet12(
    in_channels: int,
    num_classes: int,
    *,
    widths: Sequence[int] = WIDTHS,
    batch_statistics: str = "transductive",
    num_steps: int | None = None,
) -> nn.Sequential:
    """Return ResNet-12: four residual blocks, a spatial mean and a linear head.

    A block has three 3x3 convolutions.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        widths: Filters of each block, which halves the image; (64, 128, 256, 512) is the network of
            TADAM.
        batch_statistics: What normalises a query example, as in `use_batch_statistics`.
        num_steps: Number of inner steps, only needed for "per_step".

    Returns:
        A module from images `[num_examples, in_channels, H, W]`, H and W at least 2 ** len(widths),
        to logits `[num_examples, num_classes]`, with children `features` and `head`.

    Raises:
        TypeError: If a count is not an int, or `widths` not a list of counts.
        ValueError: If a count is below 1, or the choice is unknown.

    References:
        Oreshkin et al., "TADAM: task dependent adaptive metric for improved few-shot learning",
        NeurIPS 2018. Lee et al., "Meta-learning with differentiable convex optimization", CVPR 2019
        (these widths; its DropBlock is left out).

    >>> import torch
    >>> resnet12(3, 5, widths=(4, 8))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """
    fix = "Write resnet12(3, 5, widths=(64, 160, 320, 640))."
    if isinstance(widths, str) or not isinstance(widths, Sequence) or not widths:
        raise mistyped("resnet12's widths", "be a list of counts", brief(widths), fix)
    counts = [in_channels, *widths]
    for count in [*counts, num_classes]:
        check_count("resnet12's channels, widths and classes", count, fix=fix)
    check_choice("resnet12's batch_statistics", batch_statistics, BATCH_STATISTICS)
    blocks = [_Block(before, after) for before, after in pairwise(counts)]
    features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Linear(counts[-1], num_classes)
    network = nn.Sequential(OrderedDict(features=features, head=head))
    use_batch_statistics(network, batch_statistics, num_steps=num_steps)
    return network


class _Block(nn.Module):
    """Three convolutions beside a projection of the input, and pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels, out_channels):
            convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers[:-1])
        projection = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        self.out = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layers(x) + self.shortcut(x))
        return out
