import weakref
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn._memory import peak_live_bytes
from metalearn.functional import grad_and_value, vjp
from metalearn.functional._derivatives import pullback


def cubic(point, scale):
    return scale * (point["a"] ** 3).sum() + (point["b"][0] * point["a"]).sum()


POINT = {"a": torch.tensor([1.0, -2.0]).double(), "b": (torch.tensor([3.0, 4.0]).double(),)}


@pytest.fixture(params=[torch.no_grad, torch.enable_grad], ids=["outermost", "inside"])
def mode(request):
    with request.param():
        yield


def test_gradient_is_that_of_torch_func(mode):
    scale = torch.tensor(2.0).double()
    for argnums in (0, 1, (0, 1)):
        ours, value = grad_and_value(cubic, argnums)(POINT, scale)
        theirs, same = torch.func.grad_and_value(cubic, argnums)(POINT, scale)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(value, same)


def test_arguments_are_counted_from_either_end():
    scale = torch.tensor(2.0).double()
    for argnums in (-1, (-2, 1)):
        ours, _ = grad_and_value(cubic, argnums)(POINT, scale)
        torch.testing.assert_close(ours, torch.func.grad(cubic, argnums)(POINT, scale))
    with pytest.raises(ValueError, match="argnums must be numbers of 2 arguments; got 2"):
        grad_and_value(cubic, 2)(POINT, scale)


@pytest.mark.parametrize("at", [3.0, {"a": torch.tensor(3)}, (None,)])
def test_what_is_no_floating_tensor_is_refused(at):
    for derivative in (grad_and_value(torch.sum), lambda at: vjp(torch.sum, at)):
        with pytest.raises(TypeError, match="must be floating tensors"):
            derivative(at)


def test_a_function_must_return_a_tensor():
    with pytest.raises(TypeError, match="function must return a scalar tensor; got 3.0"):
        grad_and_value(lambda x: 3.0)(torch.ones(2))
    with pytest.raises(TypeError, match="function must return tensors; got 'x'"):
        vjp(lambda x: {"x": x, "y": "x"}, torch.ones(2))


def test_an_unreached_input_has_a_gradient_of_zero(mode):
    (first, second), _ = grad_and_value(lambda x, y: x.sum(), (0, 1))(torch.ones(2), torch.ones(3))
    assert first.tolist() == [1, 1]
    assert second.tolist() == [0, 0, 0]
    (nothing,), _ = grad_and_value(lambda *at: torch.ones(()), (0,))(torch.ones(2))
    assert nothing.tolist() == [0, 0]


def test_pullback_can_be_used_twice(mode):
    outputs, pull = vjp(
        lambda x, y: {"product": x * y, "constant": torch.ones(1)}, torch.ones(2), 2 * torch.ones(2)
    )
    assert outputs["product"].tolist() == [2, 2]
    for factor in (1.0, 3.0):
        x_bar, y_bar = pull({"product": factor * torch.ones(2), "constant": torch.ones(1)})
        assert x_bar.tolist() == [2 * factor] * 2
        assert y_bar.tolist() == [factor] * 2


class Saved:
    """What autograd saves of a tensor, for as long as a graph holds it."""

    def __init__(self, saved, tensor):
        self.tensor = tensor
        saved.append(weakref.ref(self))


@pytest.mark.parametrize("nested", [False, True])
def test_a_pullback_frees_its_graph_and_that_of_vjp_does_not(nested):
    x = torch.tensor([1.0, -2.0]).double().requires_grad_(nested)
    saved = {"pullback": [], "vjp": []}
    for name, pull_through in (("pullback", pullback), ("vjp", lambda *at: vjp(*at)[1])):
        pack = partial(Saved, saved[name])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            pull = pull_through(lambda x: x.exp().sin(), x)
        (slope,) = pull(torch.ones_like(x))
        torch.testing.assert_close(slope, x.exp() * x.exp().cos())
        alive = [ref() is not None for ref in saved[name]]
        assert alive == [nested or name == "vjp"] * len(alive)
        assert alive


def test_nested_derivatives_are_those_of_torch_func():
    def outer(transform, pullback):
        def inside(x):
            # The constant is the same tensor as the variable: only the variable is differentiated
            # inside.
            slope, _ = transform(lambda variable: (variable**2 * x).sum())(x)
            _, pull = pullback(lambda variable: variable**3 * x, x)
            return (slope**2).sum() + pull(x)[0].sum()

        return transform(inside)

    x = torch.tensor([1.0, -2.0]).double()
    with torch.no_grad():
        ours = outer(grad_and_value, vjp)(x)
    torch.testing.assert_close(ours, outer(torch.func.grad_and_value, torch.func.vjp)(x))
    assert not ours[0].requires_grad
    assert not ours[1].requires_grad


def test_inside_vmap_and_outside_of_it():
    slope = torch.func.vmap(lambda x: grad_and_value(lambda y: (y**3).sum())(x)[0])
    assert slope(torch.tensor([[1.0], [2.0]])).tolist() == [[3], [12]]
    with torch.no_grad():
        _, pull = vjp(lambda y: y**3, torch.tensor([2.0]))
    assert torch.func.vmap(pull)(torch.tensor([[1.0], [2.0]]))[0].tolist() == [[12], [24]]


def test_differentiates_what_torch_func_cannot():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(context, x):  # without setup_context: torch.func refuses it
            context.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(context, bar):
            (x,) = context.saved_tensors
            return 2 * x * bar

    with torch.no_grad():
        gradient, _ = grad_and_value(
            lambda x: grad_and_value(lambda y: Square.apply(y).sum())(x)[0].sum()
        )(torch.ones(2))
    assert gradient.tolist() == [2, 2]


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"torch.no_grad\(\)"):
        grad_and_value(cubic)(POINT, torch.tensor(2.0).double())


def test_autocast_keeps_no_copies_of_a_steps_parameters():
    def peak(num_steps):
        torch.manual_seed(0)
        rule, order = inner.SGD(0.01), outer.Unrolled(order=1)
        model = models.mlp(1, [128, 128], 1)
        learner = outer.MAML(
            model, F.mse_loss, rule, num_steps=num_steps, batching="loop", estimator=order
        )
        episodes = data.Sinusoid(5, 5).sample(4)
        with torch.autocast("cpu", torch.bfloat16):
            learner(episodes)
            return peak_live_bytes(lambda: learner(episodes))

    assert peak(12) < 1.2 * peak(2)


def test_what_comes_along_has_no_part_in_the_derivative():
    def loss(w, x):
        return (w * x).square().sum(), {"doubled": 2 * w}

    w, x = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 1.0]).double()
    gradient, (value, aux) = grad_and_value(loss, has_aux=True)(w, x)
    assert gradient.tolist() == [18.0, 4.0]
    assert value.item() == 13.0
    assert aux["doubled"].tolist() == [2.0, 4.0]
    assert not aux["doubled"].requires_grad
    mapped = torch.func.vmap(grad_and_value(loss, has_aux=True), (None, 0))
    gradients, (_, doubled) = mapped(w, torch.stack([x, x]))
    assert gradients.tolist() == [[18.0, 4.0]] * 2
    assert doubled["doubled"].shape == (2, 2)


def test_the_way_is_chosen_where_it_is_called():
    gradient = grad_and_value(lambda x: x.pow(3).sum())
    x = torch.tensor([1.0, 2.0]).double()
    assert torch.func.vmap(gradient)(x)[0].tolist() == [3.0, 12.0]
    assert torch.func.jvp(lambda x: gradient(x)[0], (x,), (torch.ones_like(x),))[1].tolist() == [
        6.0,
        12.0,
    ]


def test_nothing_to_differentiate_by():
    x = torch.tensor(2.0, requires_grad=True)
    gradient, value = grad_and_value(lambda params, x: x * x)({}, x)
    assert gradient == {}
    assert value.item() == 4.0


def test_an_argument_is_named_once():
    with pytest.raises(ValueError, match="argnums must be each given once"):
        grad_and_value(lambda a, b: a * b, (0, -2))(torch.ones(()), torch.ones(()))
