import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradgradcheck

from metalearn._layers._convolution import convolve
from metalearn._layers._fold import Geometry
from metalearn._layers._products import convolve_groups, cotangents_of_groups
from tests.layers.derivatives import third

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("channels", [1, 4])
def test_derivatives_on_a_gpu(channels):
    geometry = Geometry((2, 2), (1, 1), (1, 1), GROUPS)
    shapes = (N, GROUPS * channels, 5, 4), (GROUPS * FILTERS, channels, 3, 3), (GROUPS * FILTERS,)
    args = [torch.randn(shape, dtype=torch.float64, device="cuda", requires_grad=True) for shape in shapes]
    assert gradgradcheck(lambda *args: convolve(*args, geometry), args, fast_mode=True)
    ours = third(lambda *args: convolve(*args, geometry), args)
    on_cpu = [arg.detach().cpu().requires_grad_() for arg in args]
    for mine, reference in zip(ours, third(lambda *args: F.conv2d(*args, *geometry), on_cpu), strict=True):
        torch.testing.assert_close(mine.cpu(), reference)
