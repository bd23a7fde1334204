import pytest
import torch
import torch.nn as nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from metalearn.models._conv2d import Conv2d, Geometry, convolve

SIMPLE = Geometry((2, 2), (1, 1), (1, 1), 1)
ODD = Geometry((1, 2), (0, 1), (2, 1), 2)


def tensors(geometry, bias=True, tasks=()):
    torch.manual_seed(0)
    shapes = [(2, 4, 5, 4), (2, 4 // geometry.groups, 3, 3), (2,)][: 3 if bias else 2]
    return [torch.randn(*tasks, *shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def ours(geometry):
    return lambda x, weight, bias=None: convolve(x, weight, bias, geometry)


def theirs(geometry):
    return lambda x, weight, bias=None: nn.functional.conv2d(x, weight, bias, *geometry)


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
        for mine, reference in zip(third(ours(geometry), args), third(theirs(geometry), args), strict=True):
            torch.testing.assert_close(mine, reference)

    @pytest.mark.parametrize("shared", [0, 1, 2])
    def test_tasks_of_which_something_is_shared(self, geometry, bias, shared):
        args = tensors(geometry, bias, tasks=(3,))
        axes = [None if index == shared else 0 for index in range(len(args))]
        args = [arg[0] if axis is None else arg for arg, axis in zip(args, axes, strict=True)]

        every = tuple(range(len(args)))

        def first(function):
            return grad(lambda *args: function(*args).pow(3).sum(), every)

        def second(function):
            return grad(lambda *args: sum(each.square().sum() for each in first(function)(*args)), every)

        for derivative in (lambda function: function, first, second):
            mine, reference = (vmap(derivative(each(geometry)), tuple(axes))(*args) for each in (ours, theirs))
            torch.testing.assert_close(mine, reference)


def third(function, args):
    """Return the gradients of something of the gradients of something of the gradients."""
    value = function(*args).sin().sum()
    for create in (True, True, False):
        grads = torch.autograd.grad(value, args, create_graph=create, materialize_grads=True)
        value = sum((each.sin() * torch.arange(each.numel()).reshape(each.shape)).sum() for each in grads)
    return grads


class TestConv2d:
    @pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}, {}])
    def test_is_that_of_pytorch(self, options):
        layer, images = Conv2d(2, 3, 3, **options), torch.randn(2, 2, 5, 5)
        reference = nn.Conv2d(2, 3, 3, **options)
        reference.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(images), reference(images))
        torch.testing.assert_close(layer(images[0]), reference(images[0]))

    def test_only_what_is_needed_is_computed(self):
        layer, images = Conv2d(2, 3, 3).requires_grad_(False), torch.randn(1, 2, 5, 5, requires_grad=True)
        (first,) = torch.autograd.grad(layer(images).pow(2).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), images)
        reference = torch.func.hessian(lambda x: nn.functional.conv2d(x, layer.weight, layer.bias).pow(2).sum())(images)
        torch.testing.assert_close(second.flatten(), 2 * reference.reshape(50, 50) @ first.detach().flatten())

    def test_forward_mode_is_left_to_pytorch(self):
        layer, images = Conv2d(2, 3, 3), torch.randn(1, 2, 5, 5)
        _, tangent = torch.func.jvp(layer, (images,), (images,))
        torch.testing.assert_close(tangent, layer(images) - layer.bias[:, None, None])
