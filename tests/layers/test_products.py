import itertools

import pytest
import torch
import torch.nn.functional as F

from metalearn._layers._fold import Geometry
from metalearn._layers._products import convolve_groups, cotangents_of_groups

GROUPS, C, FILTERS, N = 3, 4, 5, 2
STRIDES, PADDINGS, KERNELS = [(1, 1), (2, 2), (3, 2)], [(0, 0), (2, 1)], [(3, 3), (1, 1), (2, 3)]
CASES = list(itertools.product(STRIDES, PADDINGS, KERNELS, [(7, 7), (6, 9)], [True, False]))
ALL = (True, True, True)


def channels_last(*shape):
    return torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("stride", "padding", "kernel", "size", "biased"), CASES)
def test_equals_pytorch(stride, padding, kernel, size, biased):
    x, weight = channels_last(N, GROUPS * C, *size), channels_last(GROUPS * FILTERS, C, *kernel)
    bias = torch.randn(GROUPS * FILTERS, dtype=torch.float64) if biased else None
    geometry = Geometry(stride, padding, (1, 1), GROUPS)
    y = F.conv2d(x, weight, bias, *geometry)
    torch.testing.assert_close(convolve_groups(x, weight, bias, geometry), y)
    y_bar = torch.randn_like(y)
    options = [GROUPS * FILTERS], stride, padding, (1, 1), False, (0, 0), GROUPS, ALL
    _, *expected = torch.ops.aten.convolution_backward(y_bar, x, weight, *options)
    torch.testing.assert_close(cotangents_of_groups(y_bar, x, weight, geometry), tuple(expected))
