import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from metalearn._layers._normalisation import normalise
from tests.layers.derivatives import of_many_cotangents, third

SHAPES = [(5, 3), (4, 3, 2), (3, 3, 2, 2)]


def tensors(shape, affine=True):
    torch.manual_seed(0)
    shapes = [shape, (shape[1],), (shape[1],)][: 3 if affine else 1]
    return [torch.randn(each, dtype=torch.float64, requires_grad=True) for each in shapes]


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


def test_layout_is_kept_and_does_not_matter():
    x, y_bar = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = x.contiguous(memory_format=layout).requires_grad_()
        y = ours(inputs)
        assert y.is_contiguous(memory_format=layout)
        (first,) = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
        gradients.append(torch.autograd.grad(first, inputs, y_bar)[0])
    torch.testing.assert_close(*gradients)


def test_rounding_is_that_of_sums_in_pairs():
    torch.manual_seed(0)
    x = (torch.randn(40, 8, 28, 28) + 1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(x).double(), ours(x.double()), rtol=0, atol=3e-6)


def test_inputs_in_any_order_in_memory():
    args = [tensors((3, 2, 2, 2))[0].transpose(0, 1), *tensors((3, 3, 2))[1:]]
    assert gradgradcheck(ours, args, fast_mode=True)


def test_parameters_that_are_expanded():
    x, weight, bias = tensors((5, 3))
    args = x, weight[:1], bias[:1]
    torch.testing.assert_close(second_of_expanded(ours, *args), second_of_expanded(by_hand, *args))


def second_of_expanded(function, x, weight, bias):
    first = torch.autograd.grad(
        function(x, weight.expand(3), bias.expand(3)).sin().sum(), x, create_graph=True
    )
    return torch.autograd.grad(first[0].sin().sum(), (x, weight, bias), materialize_grads=True)


def test_a_single_value_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value"):
        ours(torch.zeros(1, 3))


def test_forward_mode_is_pytorchs():
    args = tuple(arg.detach() for arg in tensors((5, 3)))
    _, mine = torch.func.jvp(ours, args, args)
    _, reference = torch.func.jvp(by_hand, args, args)
    torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("further", [False, True])
def test_many_cotangents_at_once(further):
    args = tensors((3, 3, 2, 2))
    mine, reference = (
        of_many_cotangents(function, args, further=further) for function in (ours, by_hand)
    )
    torch.testing.assert_close(mine, reference)
