"""Input cotangents of strided grouped convolutions as one convolution, for cuDNN's sake."""

import torch.nn.functional as F
from torch import Tensor

from metalearn._layers._fold import Geometry, channels_last

MANY = 16
"""Images from which on it is faster than cuDNN."""


def is_faster(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Return whether `input_cotangent` can be used, and is faster than cuDNN."""
    fits = all(
        more >= before
        for more, before in zip(_reach(weight, geometry), geometry.padding, strict=True)
    )
    return fits and geometry.groups > 1 and max(geometry.stride) > 1 and len(x) >= MANY


def input_cotangent(y_bar: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the cotangent of images `x`, without a derivative.

    Padding is at most a kernel's reach.

    It is a convolution of `y_bar`, with zeros at the places that the stride leaves out, with every
    group's weights turned by half a circle, from its outputs to its inputs.
    """
    stride, padding, dilation, groups = geometry
    reach = _reach(weight, geometry)
    sides = [side + more for side, more in zip(x.shape[2:], reach, strict=True)]
    spread = y_bar.new_zeros(len(y_bar), *sides, y_bar.shape[1]).permute(0, 3, 1, 2)
    starts = [more - before for more, before in zip(reach, padding, strict=True)]
    places = zip(starts, stride, y_bar.shape[2:], strict=True)
    spread[:, :, *(slice(start, start + step * count, step) for start, step, count in places)] = (
        y_bar
    )
    turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    return F.conv2d(spread, channels_last(turned), None, 1, 0, dilation, groups)


def _reach(weight: Tensor, geometry: Geometry) -> list[int]:
    """Return how far apart the first and the last place are that a kernel reads."""
    return [
        each * (side - 1) for each, side in zip(geometry.dilation, weight.shape[2:], strict=True)
    ]
