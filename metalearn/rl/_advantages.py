"""A fitted linear baseline and generalised advantage estimation."""

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_fraction, check_one_device, invalid, mistyped


def fitted_values(observations: Tensor, rewards: Tensor, discount: float = 0.99) -> Tensor:
    """Return the values of a linear baseline, a ridge regression on these trajectories' returns.

    Its features are the observation, its square, the time t, its square and cube, and 1.

    Args:
        observations: Observations `[horizon, num_trajectories, observation_size]`.
        rewards: Rewards `[horizon, num_trajectories]`.
        discount: Discount factor, from 0 to 1.

    Returns:
        Values `[horizon, num_trajectories]`, detached.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes or devices disagree, or `discount` is not from 0 to 1.

    References:
        Duan et al., "Benchmarking deep reinforcement learning for continuous control", ICML 2016.
    """
    _check_steps("rewards", rewards, 2)
    _check_steps("observations", observations, 3)
    _check_same_steps("observations and rewards", observations, rewards)
    check_fraction("discount", discount, fix="Pass discount=0.99.")
    seen = observations.detach().double()
    time = torch.arange(len(rewards), dtype=seen.dtype, device=seen.device)[:, None, None] / 100
    time = time.expand(*rewards.shape, 1)
    columns = [seen, seen.square(), time, time.square(), time**3, torch.ones_like(time)]
    features = torch.cat(columns, -1).flatten(0, 1)
    returns = _sums_ahead(rewards.detach().double(), discount).flatten()
    # in float64 and scaled, since observations may be nearly constant
    features = features / features.abs().amax(0).clamp(min=1)
    gram = features.mT @ features / len(returns) + 1e-8 * torch.eye(features.shape[-1]).to(features)
    weights = torch.linalg.solve(gram, features.mT @ returns / len(returns))
    return (features @ weights).reshape(rewards.shape).to(rewards.dtype)


def advantages(
    rewards: Tensor, values: Tensor | None = None, discount: float = 0.99, decay: float = 1.0
) -> Tensor:
    """Return generalised advantage estimates.

    Without values, these are rewards-to-go, discounted by `discount * decay`.

    Args:
        rewards: Rewards `[horizon, num_trajectories]`.
        values: A baseline's values of the same shape; the value after the last step is 0. None for
            no baseline.
        discount: Discount factor, from 0 to 1.
        decay: lambda, from 0 to 1: 1 trusts the rewards, 0 the values.

    Returns:
        Advantages `[horizon, num_trajectories]`, detached.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes or devices disagree, or a factor is not from 0 to 1.

    References:
        Schulman et al., "High-dimensional continuous control using generalized advantage
        estimation", ICLR 2016.

    >>> advantages(torch.tensor([[1.0], [2.0], [4.0]]), discount=0.5).flatten()
    tensor([3., 4., 4.])
    """
    _check_steps("rewards", rewards, 2)
    check_fraction("discount", discount, fix="Pass discount=0.99.")
    check_fraction("decay", decay, fix="Pass decay=0.97.")
    if values is None:
        return _sums_ahead(rewards.detach(), discount * decay)
    _check_steps("values", values, 2)
    _check_same_steps("values and rewards", values, rewards)
    values = values.detach()
    after = torch.cat([values[1:], torch.zeros_like(values[:1])])
    return _sums_ahead(rewards.detach() + discount * after - values, discount * decay)


def _sums_ahead(x: Tensor, factor: float) -> Tensor:
    """Return discounted sums from each step on, by one product with a triangular matrix."""
    steps = torch.arange(len(x), device=x.device)
    ahead = steps - steps[:, None]
    # in float64: 0.999 is 1 in bfloat16
    weights = torch.where(ahead >= 0, factor ** ahead.clamp(min=0).double(), 0.0)
    return (weights @ x.double()).to(x.dtype)


def _check_steps(what: str, value: object, dim: int) -> None:
    axes = ", ".join(("horizon", "num_trajectories", "observation_size")[:dim])
    fix = "Pass those of a Rollout."
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise mistyped(what, f"be a floating tensor [{axes}]", brief(value), fix)
    if value.dim() != dim or 0 in value.shape[:2]:
        raise invalid(what, f"be of shape [{axes}]", tuple(value.shape), fix)


def _check_same_steps(what: str, left: Tensor, rewards: Tensor) -> None:
    check_one_device(what, (left, rewards))
    if left.shape[:2] != rewards.shape:
        got = f"{tuple(left.shape)} and {tuple(rewards.shape)}"
        raise invalid(what, "be of the same steps", got, "Pass those of one Rollout.")
