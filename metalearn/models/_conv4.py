"""The convolutional network of the few-shot papers."""

from collections import OrderedDict

import torch.nn as nn

from metalearn._checks import check_choice, check_count, invalid
from metalearn.models._batch_statistics import BATCH_STATISTICS, use_batch_statistics


def conv4(
    in_channels: int,
    num_classes: int,
    *,
    num_filters: int = 64,
    num_layers: int = 4,
    image_size: int = 28,
    downsample: str = "stride",
    batch_statistics: str = "transductive",
    num_steps: int | None = None,
) -> nn.Sequential:
    """Return the few-shot papers' network: up to 4 convolutional blocks and a linear head.

    A block is a 3x3 convolution, batch normalisation and ReLU.

    Args:
        in_channels: Channels of an image, at least 1.
        num_classes: Number of outputs, at least 1.
        num_filters: Filters of every convolution, at least 1.
        num_layers: Number of blocks, 1 to 4.
        image_size: Height and width of an image in pixels; every block halves it.
        downsample: "stride", convolutions of stride 2 and a spatial mean before the head (Finn et
            al. on Omniglot), or "max_pool", pooling after each ReLU and the flattened rest of the
            image before the head (Vinyals et al.). Pooling is 2x2, 4x4 with two blocks and 8x8 with
            one, so that the head stays small.
        batch_statistics: What normalises a query example, as in `use_batch_statistics`:
            "transductive", "support", "per_step" or "frozen", which normalises nothing until
            `load_state_dict` brings statistics.
        num_steps: Number of inner steps, only needed for "per_step".

    Returns:
        A module from images `[num_examples, in_channels, image_size, image_size]` to logits
        `[num_examples, num_classes]`, with children `features` and `head`.

    Raises:
        TypeError: If a count is not an int.
        ValueError: If a count is out of range, a choice is unknown, or the image is too small for
            the blocks.

    References:
        Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016 (max_pool). Finn et
        al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017
        (stride). Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta
        learning", 2019 (fewer blocks).

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
    check_choice("conv4's batch_statistics", batch_statistics, BATCH_STATISTICS)

    layers: list[nn.Module] = []
    size, pool = image_size, 2 * (4 // num_layers)
    for index in range(num_layers):
        layers += _block(in_channels if index == 0 else num_filters, num_filters, downsample, pool)
        size = (size + 1) // 2 if downsample == "stride" else size // pool
    if size < 1:
        fix = "Use larger images, or downsample='stride'."
        raise invalid("conv4's image_size", f"be at least {pool**num_layers}", image_size, fix)

    if downsample == "stride":
        layers.append(nn.AdaptiveAvgPool2d(size := 1))
    features = nn.Sequential(*layers, nn.Flatten())
    head = nn.Linear(num_filters * size * size, num_classes)
    network = nn.Sequential(OrderedDict(features=features, head=head))
    use_batch_statistics(network, batch_statistics, num_steps=num_steps)
    return network


def _block(in_channels: int, out_channels: int, downsample: str, pool: int) -> list[nn.Module]:
    stride, pools = (2, []) if downsample == "stride" else (1, [nn.MaxPool2d(pool)])
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(), *pools]
