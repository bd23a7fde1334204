"""The bilevel problem of Franceschi et al. in full: s_0 = Phi_0(D, lambda), and E(s_T, lambda) of
states s = (w, v), whose auxiliary variables v are fast parameters that the rule alone moves."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn

from metalearn import inner, outer
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference

RATE, STEPS, TASKS = 0.05, 4, 3


class Linear(nn.Module):
    """A linear model whose state holds the weights' velocity."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.velocity = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight


@dataclass(frozen=True)
class HeavyBall(inner.UpdateRule):
    """Gradient descent with a learned momentum, whose velocity is a fast parameter."""

    lr: float

    def init_meta(self, params):
        return {"momentum": params["weight"].new_tensor(0.8)}

    def update(self, meta, grads, state, params, loss, step):
        velocity = meta["momentum"] * params["velocity"] + grads["weight"]
        moved = {"weight": -self.lr * velocity, "velocity": velocity - params["velocity"]}
        return moved, state


class Start(nn.Module):
    """Learned multiples of the correlations of features and targets, for w and v."""

    def __init__(self):
        super().__init__()
        self.scales = nn.Parameter(torch.tensor([0.5, -0.2], dtype=torch.float64))

    def forward(self, meta, support, key):
        along = support.y @ support.x / len(support.y)
        return {"weight": self.scales[0] * along, "velocity": self.scales[1] * along}


class Objective(nn.Module):
    """The validation error plus a learned multiple of the squared speed at the end."""

    def __init__(self):
        super().__init__()
        self.log_price = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, params, shared, episode):
        return error(params["weight"], episode.query) + self.log_price.exp() * (
            params["velocity"].square().sum()
        )


def error(weight, batch):
    return (batch.x @ weight - batch.y).square().mean()


def learner(estimator, start=None, learn_init=False, **options):
    return outer.MetaLearner(
        Linear(),
        None,
        HeavyBall(RATE),
        num_steps=STEPS,
        support_loss=lambda params, shared, episode, step: error(params["weight"], episode.support),
        query_loss=Objective(),
        start=start,
        learn_init=learn_init,
        estimator=estimator,
        **options,
    )


@pytest.fixture
def tasks():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TASKS, 16, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(TASKS, 16, generator=generator, dtype=torch.float64)
    return Episode(Batch(x[:, :8], y[:, :8]), Batch(x[:, 8:], y[:, 8:]))


def by_hand(tasks, start, momentum, log_price):
    """Return the mean of E(s_T, lambda) over tasks, by plain autograd."""
    total = 0
    for index in range(TASKS):
        x, y = tasks.support.x[index], tasks.support.y[index]
        weight, velocity = start(x, y)
        for _ in range(STEPS):
            grad = 2 / len(y) * x.T @ (x @ weight - y)
            velocity = momentum * velocity + grad
            weight = weight - RATE * velocity
        query = Batch(tasks.query.x[index], tasks.query.y[index])
        total = total + error(weight, query) + log_price.exp() * velocity.square().sum()
    return total / TASKS


def leaves(*values):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


EXACT = [outer.Unrolled(), outer.Stepwise(segment=3), outer.ForwardMode()]


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
@pytest.mark.parametrize("estimator", EXACT, ids=str)
def test_a_start_that_is_a_function_of_the_data_and_what_is_learned(estimator, options, tasks):
    ours = learner(estimator, Start(), **options)
    loss = ours(tasks, keys=keys())
    loss.backward()
    scales, momentum, log_price = learned = leaves([0.5, -0.2], 0.8, -1.0)

    def start(x, y):
        along = y @ x / len(y)
        return scales[0] * along, scales[1] * along

    expected = by_hand(tasks, start, momentum, log_price)
    gradients = torch.autograd.grad(expected, learned)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    parameters = ours.start.scales, ours.rule.momentum, ours.query_loss.log_price
    assert relative_difference([param.grad for param in parameters], list(gradients)) < 1e-10


@pytest.mark.parametrize("estimator", EXACT, ids=str)
def test_auxiliary_variables_may_have_a_learned_start(estimator, tasks):
    ours = learner(estimator, learn_init=True)
    ours(tasks, keys=keys()).backward()
    weight, velocity, momentum, log_price = learned = leaves([0.0] * 3, [0.0] * 3, 0.8, -1.0)
    expected = by_hand(tasks, lambda x, y: (weight, velocity), momentum, log_price)
    gradients = torch.autograd.grad(expected, learned)
    parameters = ours.model.weight, ours.model.velocity, ours.rule.momentum
    grads = [param.grad for param in (*parameters, ours.query_loss.log_price)]
    assert relative_difference(grads, list(gradients)) < 1e-10
    assert all(grad.any() for grad in grads)


def test_the_weights_move_as_under_momentum(tasks):
    adapted = learner(outer.Unrolled(), Start()).adapt(tasks.support, keys=keys())
    kept = learner(outer.Unrolled(), Start()).adapt(tasks.support, 0, keys=keys())
    for index in range(TASKS):
        weight = kept.params["weight"][index].clone().requires_grad_()
        optimizer = torch.optim.SGD([weight], lr=RATE, momentum=0.8)
        optimizer.state[weight]["momentum_buffer"] = kept.params["velocity"][index].clone()
        for _ in range(STEPS):
            optimizer.zero_grad()
            error(weight, Batch(tasks.support.x[index], tasks.support.y[index])).backward()
            optimizer.step()
        torch.testing.assert_close(adapted.params["weight"][index], weight.detach())
        velocity = optimizer.state[weight]["momentum_buffer"]
        torch.testing.assert_close(adapted.params["velocity"][index], velocity)


def test_they_go_on_in_windows(tasks):
    """Two windows end where one of as many steps does, velocity included."""
    ours = learner(outer.Continued(outer.Unrolled()), Start())
    for _ in range(2):
        ours(tasks, keys=keys())
    whole = ours.adapt(tasks.support, 2 * STEPS, keys=keys())
    assert relative_difference(ours.inner_models.params, whole.params) < 1e-12
