import itertools

import pytest
import torch
import torch.nn.functional as F

from metalearn._layers._fold import Geometry
from metalearn._layers._spread import input_cotangent

GROUPS, C, FILTERS, N = 3, 4, 5, 2
STRIDES, PADDINGS, DILATIONS = [(1, 1), (2, 2), (3, 2)], [(0, 0), (2, 1)], [(1, 1), (2, 1)]
CASES = list(itertools.product(STRIDES, PADDINGS, DILATIONS, [(3, 3), (3, 2)], [(7, 7), (6, 9)]))


@pytest.mark.parametrize(("stride", "padding", "dilation", "kernel", "size"), CASES)
def test_equals_pytorch(stride, padding, dilation, kernel, size):
    x = torch.randn(N, GROUPS * C, *size, dtype=torch.float64)
    weight = torch.randn(GROUPS * FILTERS, C, *kernel, dtype=torch.float64)
    geometry = Geometry(stride, padding, dilation, GROUPS)
    y_bar = torch.randn_like(F.conv2d(x, weight, None, *geometry))
    options = (
        [GROUPS * FILTERS],
        stride,
        padding,
        dilation,
        False,
        (0, 0),
        GROUPS,
        (True, False, False),
    )
    expected, *_ = torch.ops.aten.convolution_backward(y_bar, x, weight, *options)
    torch.testing.assert_close(input_cotangent(y_bar, x, weight, geometry), expected)
