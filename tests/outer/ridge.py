"""Ridge regression with a learned penalty for every weight: hypergradients in closed form."""

import torch

from metalearn import inner, outer
from metalearn.types import Batch, Episode, Meta
from tests.cases import relative_difference


def draw(*shape):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64
    )


def examples(count):
    x = draw(count, 4)
    return Batch(x, x @ torch.tensor([1.0, -0.5, 0.2, 0.0]).double() + draw(count))


EPISODE = Episode(examples(8), examples(9))
META = Meta({"w": draw(4)}, {"log_decay": 0.1 * draw(4)}, {})
ONE_PENALTY = META._replace(shared={"log_decay": torch.zeros(1).double()})
RATE = 0.2
"""A stable rate of gradient descent."""


def squares(params, batch):
    return 0.5 * (batch.x @ params["w"] - batch.y).square().mean()


def ridge(params, shared, episode, step):
    """Least squares with a learned L2 penalty for every parameter."""
    return (
        squares(params, episode.support)
        + 0.5 * (shared["log_decay"].exp() * params["w"].square()).sum()
    )


def on_query(params, shared, episode):
    return squares(params, episode.query)


def closed_form(strength=0.0, meta=META):
    """Solve the inner problem exactly and differentiate the solution by autograd."""

    def query_loss(meta):
        x, y = EPISODE.support.x, EPISODE.support.y
        matrix = x.T @ x / len(x) + torch.diag(
            (meta.shared["log_decay"].exp() + strength).expand(4)
        )
        solution = torch.linalg.solve(matrix, x.T @ y / len(x) + strength * meta.init["w"])
        return on_query({"w": solution}, {}, EPISODE)

    return torch.func.grad_and_value(query_loss)(meta)


def estimate_of(estimator, num_steps, rule=None, support_loss=ridge):
    """Return the estimate of one call."""
    rule = rule or inner.SGD(RATE)
    gradient = outer.meta_gradient(support_loss, on_query, rule, estimator, num_steps)
    return gradient(META, EPISODE, torch.tensor(0))


def run_on(estimator, num_steps, num_meta_steps, lr=0.0, meta=META):
    """Return the last estimate, and what is learned, after meta-steps of gradient descent."""
    gradient = outer.meta_gradient(ridge, on_query, inner.SGD(RATE), estimator, num_steps)
    carry = None
    for _ in range(num_meta_steps):
        last = gradient(meta, EPISODE, torch.tensor(0), carry)
        carry, slope = last.carry, last.gradient.shared["log_decay"]
        meta = meta._replace(shared={"log_decay": meta.shared["log_decay"] - lr * slope})
    return last, meta


def error(estimate, strength=0.0):
    """Return the relative error of the gradient to the penalties."""
    return relative_difference(estimate.gradient.shared, closed_form(strength)[0].shared)


def curved(params, shared, episode, step):
    """A loss whose third derivatives are not zero, beside the penalties."""
    output = torch.tanh(episode.support.x @ params["w"])
    return (
        0.5 * (output - episode.support.y).square().mean()
        + 0.5 * (shared["log_decay"].exp() * params["w"].square()).sum()
        + 0.1 * (shared["log_decay"].sin() * params["w"].sin().pow(3)).sum()
    )
