import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from metalearn._layers._convolution import _cotangents, _cotangents_on_gpu, convolve
from metalearn._layers._fold import Geometry
from tests.layers.derivatives import of_many_cotangents, third

SIMPLE = Geometry((2, 2), (1, 1), (1, 1), 1)
ODD = Geometry((1, 2), (0, 1), (2, 1), 2)
ALL = (True, True, True)


def tensors(geometry, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = [(2, 4, 5, 4), (2, 4 // geometry.groups, 3, 3), (2,)][: 3 if bias else 2]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def ours(geometry):
    return lambda x, weight, bias=None: convolve(x, weight, bias, geometry)


def theirs(geometry):
    return lambda x, weight, bias=None: F.conv2d(x, weight, bias, *geometry)


@pytest.mark.parametrize("geometry", [SIMPLE, ODD])
@pytest.mark.parametrize("bias", [True, False])
class TestConvolve:
    def test_value(self, geometry, bias):
        args = tensors(geometry, bias)
        torch.testing.assert_close(ours(geometry)(*args), theirs(geometry)(*args))

    def test_first_and_second_derivatives(self, geometry, bias):
        args = tuple(tensors(geometry, bias))
        assert gradcheck(ours(geometry), args, fast_mode=True)
        assert gradgradcheck(ours(geometry), args, fast_mode=True)

    def test_third_derivative(self, geometry, bias):
        args = tensors(geometry, bias)
        for mine, reference in zip(
            third(ours(geometry), args), third(theirs(geometry), args), strict=True
        ):
            torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2]])
def test_only_what_is_wanted_requires_grad(wanted):
    gradients = []
    for function in (ours(SIMPLE), theirs(SIMPLE)):
        args = [
            arg.detach().requires_grad_(index in wanted)
            for index, arg in enumerate(tensors(SIMPLE))
        ]
        chosen = [args[index] for index in wanted]
        first = torch.autograd.grad(function(*args).pow(3).sum(), chosen, create_graph=True)
        second = torch.autograd.grad(sum(each.pow(2).sum() for each in first), chosen)
        gradients.append((*first, *second))
    torch.testing.assert_close(*gradients)


GROUPS, STRIDED = 3, Geometry((2, 2), (1, 1), (1, 1), 3)
KINDS = pytest.mark.parametrize(("num_images", "channels"), [(2, 1), (2, 4), (17, 1), (17, 4)])


@KINDS
@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize("needed", list(itertools.product([True, False], repeat=3)))
def test_cotangents_as_a_gpu_computes_them(num_images, channels, padding, needed):
    geometry = STRIDED._replace(padding=(padding, padding))
    x = torch.randn(num_images, GROUPS * channels, 5, 4, dtype=torch.float64)
    weight = torch.randn(GROUPS * 5, channels, 3, 3, dtype=torch.float64)
    tensors = torch.randn_like(F.conv2d(x, weight, None, *geometry)), x, weight
    tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    pairs = zip(
        _cotangents_on_gpu(*tensors, needed, geometry),
        _cotangents(*tensors, ALL, geometry),
        strict=True,
    )
    for (ours, theirs), need in zip(pairs, needed, strict=True):
        if need:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@KINDS
def test_derivatives_on_a_gpu(num_images, channels):
    shapes = (num_images, GROUPS * channels, 5, 4), (GROUPS * 5, channels, 3, 3), (GROUPS * 5,)
    args = [
        torch.randn(shape, dtype=torch.float64, device="cuda", requires_grad=True)
        for shape in shapes
    ]
    assert gradgradcheck(lambda *args: convolve(*args, STRIDED), args, fast_mode=True)
    on_cpu = [arg.detach().cpu().requires_grad_() for arg in args]
    for mine, reference in zip(
        third(ours(STRIDED), args), third(theirs(STRIDED), on_cpu), strict=True
    ):
        torch.testing.assert_close(mine.cpu(), reference)


def test_images_in_any_order_in_memory():
    x, *params = tensors(SIMPLE)
    assert gradgradcheck(
        lambda x, *params: ours(SIMPLE)(x.transpose(2, 3), *params), (x, *params), fast_mode=True
    )


def test_the_stride_of_a_single_image_does_not_matter():
    x, *params = tensors(SIMPLE)
    (single,) = (x[:1].contiguous(memory_format=torch.channels_last).detach(),)
    odd = single.as_strided(single.shape, (1, *single.stride()[1:])).requires_grad_()
    assert gradcheck(ours(SIMPLE), (odd, *params), fast_mode=True)
    assert gradgradcheck(ours(SIMPLE), (odd, *params), fast_mode=True)


def test_no_images():
    x, weight, bias = (arg.detach() for arg in tensors(SIMPLE))
    assert ours(SIMPLE)(x[:0], weight, bias).shape == (0, 2, 3, 2)
    assert ours(SIMPLE)(x[:0, :1], weight[:, :1], bias).shape == (0, 2, 3, 2)


def test_forward_mode_over_a_gradient_is_pytorchs():
    results = []
    for function in (ours(SIMPLE), theirs(SIMPLE)):
        args = tensors(SIMPLE)
        y = function(*args)
        with torch.autograd.forward_ad.dual_level():
            y_bar = torch.autograd.forward_ad.make_dual(torch.ones_like(y), y.detach())
            (bar,) = torch.autograd.grad(y, args[1], y_bar)
            results.append(torch.autograd.forward_ad.unpack_dual(bar).tangent)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_come_last(channels):
    y = convolve(torch.randn(2, channels, 6, 6), torch.randn(4, channels, 3, 3), None, SIMPLE)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.stride(1), 1)


def test_forward_mode_and_low_precision_are_pytorchs():
    args = tuple(arg.detach() for arg in tensors(SIMPLE))
    _, mine = torch.func.jvp(ours(SIMPLE), args, args)
    _, reference = torch.func.jvp(theirs(SIMPLE), args, args)
    torch.testing.assert_close(mine, reference)
    low = [arg.bfloat16() for arg in args]
    assert ours(SIMPLE)(*low).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(SIMPLE)(*(arg.float() for arg in args)).dtype == torch.bfloat16


@pytest.mark.parametrize("further", [False, True])
def test_many_cotangents_at_once(further):
    args = tensors(SIMPLE)
    mine, reference = (
        of_many_cotangents(function, args, further=further)
        for function in (ours(SIMPLE), theirs(SIMPLE))
    )
    torch.testing.assert_close(mine, reference)
