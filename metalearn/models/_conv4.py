"""The convolutional network of the few-shot papers."""

import torch.nn as nn

from metalearn._checks import check_choice, check_count, invalid


def conv4(
    in_channels: int,
    num_classes: int,
    *,
    num_filters: int = 64,
    num_layers: int = 4,
    image_size: int = 28,
    downsample: str = "stride",
    batch_statistics: str = "transductive",
) -> nn.Sequential:
    """Return the few-shot papers' network: up to 4 blocks of 3x3 convolution, batch norm and ReLU, and a linear head.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        num_filters: Filters of every convolution, at least 1.
        num_layers: Number of blocks, 1 to 4.
        image_size: Height and width of an image in pixels; every block halves it.
        downsample: "stride", convolutions of stride 2 and a spatial mean before the head (Finn et al. on Omniglot), or
            "max_pool", 2x2 pooling after each ReLU and all that is left of the image before the head (Vinyals et al.).
        batch_statistics: "transductive": every batch, query sets included, is normalised by its own statistics.

    Returns:
        A module from images `[num_examples, in_channels, image_size, image_size]` to logits
        `[num_examples, num_classes]`, with children `features` and `head`.

    Raises:
        TypeError: If a count is no int.
        ValueError: If a count is out of range, a choice is unknown, or the image is too small for the blocks.

    References:
        Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016 (max_pool).
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017 (stride).

    >>> import torch
    >>> conv4(1, 5)(torch.zeros(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    >>> sum(p.numel() for p in conv4(1, 10).parameters())  # as in Arnold et al., 2019
    112586
    """
    counts = {"in_channels": in_channels, "num_classes": num_classes, "num_filters": num_filters}
    for name, count in {**counts, "num_layers": num_layers, "image_size": image_size}.items():
        check_count(f"conv4's {name}", count)
    check_choice("conv4's num_layers", num_layers, range(1, 5))
    check_choice("conv4's downsample", downsample, ["stride", "max_pool"])
    check_choice("conv4's batch_statistics", batch_statistics, ["transductive"])

    blocks: list[nn.Module] = []
    size = image_size
    for index in range(num_layers):
        blocks += _block(in_channels if index == 0 else num_filters, num_filters, downsample)
        size = (size + 1) // 2 if downsample == "stride" else size // 2
    if size < 1:
        fix = f"Use fewer blocks: conv4(..., num_layers={image_size.bit_length() - 1})."
        raise ValueError(invalid("conv4's image_size", f"survive {num_layers} halvings", image_size, fix))

    if downsample == "stride":
        blocks.append(nn.AdaptiveAvgPool2d(size := 1))
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*blocks, nn.Flatten()))
    network.add_module("head", nn.Linear(num_filters * size * size, num_classes))
    return network


def _block(in_channels: int, out_channels: int, downsample: str) -> list[nn.Module]:
    stride = 2 if downsample == "stride" else 1
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
        nn.BatchNorm2d(out_channels, track_running_stats=False),
        nn.ReLU(),
        *([nn.MaxPool2d(2)] if downsample == "max_pool" else []),
    ]
