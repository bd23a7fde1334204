import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from metalearn.models._normalise import normalise

SHAPES = [(5, 3), (4, 3, 2), (3, 3, 2, 2)]


def tensors(shape, affine=True, tasks=()):
    torch.manual_seed(0)
    shapes = [shape, (shape[1],), (shape[1],)][: 3 if affine else 1]
    return [torch.randn(*tasks, *each, dtype=torch.float64, requires_grad=True) for each in shapes]


def ours(x, weight=None, bias=None):
    return normalise(x, weight, bias, 1e-5)


def theirs(x, weight=None, bias=None):
    return F.batch_norm(x, None, None, weight, bias, training=True)


def by_hand(x, weight=None, bias=None):
    other = [axis for axis in range(x.dim()) if axis != 1]
    var, mean = torch.var_mean(x, other, correction=0, keepdim=True)
    y = (x - mean) * (var + 1e-5).rsqrt()
    each = (-1, *[1] * (x.dim() - 2))
    return y if weight is None else y * weight.reshape(each) + bias.reshape(each)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
class TestNormalise:
    def test_value(self, shape, affine):
        args = tensors(shape, affine)
        torch.testing.assert_close(ours(*args), theirs(*args))

    def test_first_and_second_derivatives(self, shape, affine):
        args = tuple(tensors(shape, affine))
        assert gradcheck(ours, args, fast_mode=True)
        assert gradgradcheck(ours, args, fast_mode=True)

    def test_third_derivative_which_pytorch_lacks(self, shape, affine):
        args = tensors(shape, affine)
        for mine, reference in zip(third(ours, args), third(by_hand, args), strict=True):
            torch.testing.assert_close(mine, reference)

    @pytest.mark.parametrize("shared", [0, 1, 2])
    def test_tasks_of_which_something_is_shared(self, shape, affine, shared):
        args = tensors(shape, affine, tasks=(4,))
        axes = [None if index == shared and affine else 0 for index in range(len(args))]
        args = [arg[0] if axis is None else arg for arg, axis in zip(args, axes, strict=True)]
        every = tuple(range(len(args)))

        def first(function):
            return grad(lambda *args: function(*args).pow(3).sum(), every)

        def second(function):
            return grad(lambda *args: sum(each.square().sum() for each in first(function)(*args)), every)

        for derivative in (lambda function: function, first, second):
            mine, reference = (vmap(derivative(function), tuple(axes))(*args) for function in (ours, by_hand))
            torch.testing.assert_close(mine, reference)


def third(function, args):
    value = function(*args).sin().sum()
    for create in (True, True, False):
        grads = torch.autograd.grad(value, args, create_graph=create, materialize_grads=True)
        value = sum((each.sin() * torch.arange(each.numel()).reshape(each.shape)).sum() for each in grads)
    return grads


def test_layout_is_kept():
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert ours(x).is_contiguous(memory_format=torch.channels_last)
    assert ours(x.contiguous()).is_contiguous()


def test_a_single_value_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        ours(torch.zeros(1, 3))


def test_forward_mode_is_left_to_pytorch():
    args = tensors((5, 3))
    _, tangent = torch.func.jvp(ours, tuple(args), tuple(args))
    _, reference = torch.func.jvp(by_hand, tuple(args), tuple(args))
    torch.testing.assert_close(tangent, reference)
