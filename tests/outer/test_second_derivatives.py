"""Functions of autograd that can be differentiated once, which PyTorch cuts off in silence."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from metalearn import inner, outer, testing
from metalearn.types import Batch, Meta
from tests.cases import keys, relative_difference, sine_episodes
from tests.outer.cases import assert_refused, learner

ADVICE = "take first derivatives alone: estimator=outer.Unrolled(order=1), outer.OneStep(), outer"


class Square(torch.autograd.Function):
    """x^2, whose backward can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, bar):
        return 2 * ctx.saved_tensors[0] * bar


class Marked(Square):
    """The same, marked as once differentiable."""

    backward = staticmethod(once_differentiable(Square.backward))


class Kernel(Square):
    """The same with a backward that autograd does not see, as that of a kernel."""

    @staticmethod
    @torch.no_grad()
    def backward(ctx, bar):
        return 2 * ctx.saved_tensors[0] * bar


class Signed(torch.autograd.Function):
    """A sign, whose derivative is a constant zero."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, bar):
        return torch.zeros_like(bar)


ONCE = [Marked, Kernel]


class Layer(nn.Module):
    """A function between linear layers."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.function = nn.Linear(1, 4), nn.Linear(4, 1), function
        self.double()

    def forward(self, x):
        return self.head(self.function.apply(self.body(x)))


class Criterion(nn.Module):
    """A squared error by a function, the last one that computes something."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, output, y):
        return self.function.apply(output - y).mean()


class OwnLoss:
    """A user's own support loss, with a penalty by a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, params, shared, episode, step):
        x, y = episode.support.x, episode.support.y
        penalty = sum(self.function.apply(param).sum() for param in params.values())
        return F.mse_loss(x @ params["weight"].T + params["bias"], y) + 0.1 * penalty


def linear():
    torch.manual_seed(0)
    return nn.Linear(1, 1).double()


def in_module(function, **options):
    return learner(Layer(function), rule=inner.SGD(0.1), **options)


def in_criterion(function, **options):
    return learner(linear(), Criterion(function), rule=inner.SGD(0.1), **options)


def in_own_loss(function, **options):
    return learner(linear(), rule=inner.SGD(0.1), support_loss=OwnLoss(function), **options)


PLACES = [in_module, in_criterion, in_own_loss]
SECOND_ORDER = [
    outer.Unrolled(),
    outer.Stepwise(),
    outer.ForwardMode(),
    outer.ForwardGradient(2),
    outer.SkipDiverged(outer.Unrolled()),
    outer.Implicit(2.0),
]


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"check_model": False}], ids=str)
@pytest.mark.parametrize("function", ONCE)
@pytest.mark.parametrize("place", PLACES)
def test_is_refused_by_name_wherever_it_is(place, function, options):
    made = place(function, **options)
    message = f"must be differentiable twice; got ['{function.__name__}']"
    for part in (message, ADVICE):
        assert_refused(lambda: made(sine_episodes()), ValueError, part)


@pytest.mark.parametrize("estimator", SECOND_ORDER, ids=str)
@pytest.mark.parametrize("function", ONCE)
def test_is_refused_under_whatever_differentiates_twice(function, estimator):
    made = in_criterion(function, estimator=estimator)
    assert_refused(lambda: made(sine_episodes()), ValueError, function.__name__)


@pytest.mark.parametrize("function", ONCE)
@pytest.mark.parametrize("place", PLACES)
def test_the_advice_works(place, function):
    options = {"estimator": outer.Unrolled(order=1), "batching": "loop"}
    found, exact = (
        place(each, **options).estimate(sine_episodes(), keys()).gradient
        for each in (function, Square)
    )
    assert relative_difference(found, exact) < 1e-12


@pytest.mark.parametrize(
    "estimator", [outer.OneStep(), outer.Penalty(100.0), outer.Implicit(1.0, epsilon=0.01)], ids=str
)
@pytest.mark.parametrize("function", ONCE)
@pytest.mark.filterwarnings("ignore:.*at its first call, where 0 is exact")
def test_the_advice_works_for_what_is_shared(function, estimator):
    options = {"estimator": estimator, "batching": "loop", "fast": "head", "learn_init": False}
    found, exact = (
        in_module(each, **options).estimate(sine_episodes(), keys()).gradient
        for each in (function, Square)
    )
    assert found.shared
    assert relative_difference(found, exact) < 1e-12


def test_functions_that_can_be_differentiated_pass():
    made = [place(Square, batching="loop") for place in PLACES]
    assert all(each(sine_episodes()).isfinite() for each in made)


def test_a_derivative_of_zero_is_a_constant():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()

        def forward(self, x):
            output = self.layer(x)
            return output + Signed.apply(output)

    made = learner(Both(), rule=inner.SGD(0.1), batching="loop")
    assert made(sine_episodes()).isfinite()


@pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.Stepwise(), outer.Implicit(2.0)])
@pytest.mark.parametrize("function", ONCE)
@pytest.mark.filterwarnings("ignore:.*at its first call, where 0 is exact")
def test_layers_below_the_head_that_adapts_are_differentiated_once(function, estimator):
    options = {"estimator": estimator, "batching": "loop", "fast": "head"}
    found, exact = (
        in_module(each, **options).estimate(sine_episodes(), keys()).gradient
        for each in (function, Square)
    )
    assert relative_difference(found, exact) < 1e-12


@pytest.mark.parametrize("function", ONCE)
def test_forward_mode_differentiates_them_twice(function):
    made = in_module(function, estimator=outer.ForwardMode(), fast="head", batching="loop")
    assert_refused(lambda: made(sine_episodes()), ValueError, function.__name__)


def test_query_losses_are_differentiated_once():
    def query_loss(params, shared, episode):
        return Marked.apply(params["weight"]).sum() + params["bias"].sum()

    made = learner(linear(), rule=inner.SGD(0.1), query_loss=query_loss, batching="loop")
    assert isinstance(made.estimate(sine_episodes()).gradient, Meta)


def test_checkpointed_layers_pass():
    class Checkpointed(Layer):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    found, exact = (
        learner(kind(Square), rule=inner.SGD(0.1), batching="loop").estimate(
            sine_episodes(), keys()
        )
        for kind in (Checkpointed, Layer)
    )
    assert relative_difference(found.gradient, exact.gradient) < 1e-12


@pytest.mark.parametrize("function", ONCE)
def test_check_model_refuses_it(function):
    episodes = sine_episodes()
    batch = Batch(episodes.support.x[0], episodes.support.y[0])
    with pytest.raises(AssertionError, match=function.__name__):
        testing.check_model(Layer(function), batch, F.mse_loss)
    testing.check_model(Layer(function), batch, F.mse_loss, order=1)
