"""Grouped convolutions as batched matrix products of patches.

All tensors are in memory with their channels last. Groups, of which there are G, have C and F
channels each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._layers._fold import Geometry

PARTS = 16
"""Most parts of a sum over all places: a single product of a few rows and columns leaves most of a
GPU idle."""


def is_faster(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Return whether these are faster than cuDNN on a GPU: for groups of one channel."""
    is_grey = geometry.groups > 1 and weight.shape[1] == 1 < len(weight) // geometry.groups
    return is_grey and set(geometry.dilation) == {1} and len(x) > 0


def convolve_groups(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return `F.conv2d` of images `[n, G * C, H, W]`, without a derivative.

    Weights are `[G * F, C, kh, kw]`.
    """
    patches, weights = _patches(x, weight, geometry).transpose(0, 1), _by_group(weight, geometry)
    height, width = _size(x, weight, geometry)
    y = x.new_empty(len(x) * height * width, geometry.groups, weights.shape[1])
    if bias is None:
        torch.bmm(patches, weights.mT, out=y.transpose(0, 1))
    else:
        torch.baddbmm(
            bias.reshape(geometry.groups, 1, -1), patches, weights.mT, out=y.transpose(0, 1)
        )
    return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def cotangents_of_groups(
    y_bar: Tensor, x: Tensor, weight: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Return the cotangents of weights and bias, without a derivative."""
    rows = y_bar.permute(0, 2, 3, 1).reshape(-1, geometry.groups, len(weight) // geometry.groups)
    parts = next(parts for parts in range(PARTS, 0, -1) if len(rows) % parts == 0)

    def split(places: Tensor) -> Tensor:
        # [G * parts, places, ...]
        return places.unflatten(0, (parts, -1)).permute(2, 0, 1, 3).flatten(0, 1)

    products = torch.bmm(split(rows).mT, split(_patches(x, weight, geometry)))
    by_group = products.unflatten(0, (geometry.groups, parts)).sum(1)
    weight_bar = by_group.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)
    return weight_bar, rows.sum(0).flatten()


def _by_group(weight: Tensor, geometry: Geometry) -> Tensor:
    """Return weights as `[G, F, kh * kw * C]`."""
    return weight.permute(0, 2, 3, 1).reshape(geometry.groups, len(weight) // geometry.groups, -1)


def _size(x: Tensor, weight: Tensor, geometry: Geometry) -> list[int]:
    """Return height and width of the output."""
    sides = zip(x.shape[2:], weight.shape[2:], geometry.stride, geometry.padding, strict=True)
    return [(side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in sides]


def _patches(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return what the kernel sees at each place: `[n * height * width, G, kh * kw * C]`."""
    (kh, kw), (sh, sw) = weight.shape[2:], geometry.stride
    images = _padded(x, geometry).permute(0, 2, 3, 1).unflatten(3, (geometry.groups, -1))
    windows = images.unfold(1, kh, sh).unfold(2, kw, sw)  # [n, height, width, G, C, kh, kw]
    return windows.permute(0, 1, 2, 3, 5, 6, 4).reshape(-1, geometry.groups, weight[0].numel())


def _padded(x: Tensor, geometry: Geometry) -> Tensor:
    ph, pw = geometry.padding
    return F.pad(x, (pw, pw, ph, ph)).contiguous(memory_format=torch.channels_last)
