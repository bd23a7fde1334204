"""Objectives whose derivatives with respect to log-probabilities are those of the expected
return.
"""

from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_between, check_one_device, invalid, mistyped


def reinforce(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return REINFORCE's objective: its first derivative is that of the return, further ones are
    not.

    It is what MAML was published with. Its derivative through an inner step lacks that of the
    distribution which the trajectories come from.

    Args:
        log_probs: Log-probabilities of the actions, `[horizon, num_trajectories]`.
        old_log_probs: Those when the actions were drawn, constants; here they do not matter.
        advantages: Advantages of the same shape, constants.

    Returns:
        What each action adds to the return, `[horizon, num_trajectories]`; to be summed over time.

    Raises:
        TypeError: If an argument is no tensor.
        ValueError: If shapes or devices disagree.

    References:
        Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
        learning", Machine Learning 1992.
    """
    _check(log_probs, old_log_probs, advantages)
    return log_probs * advantages


def dice(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return the objective of DiCE, all of whose derivatives are those of the return. Arguments as
    for `reinforce`.

    With box(x) = exp(x - constant(x)) and W_t the sum of log-probabilities up to t, it is (box(W_t)
    - box(W_t-1)) A_t. Unbiased are the derivatives if the advantages are: with a discount of 1 and
    without a baseline fitted to the same trajectories, or normalisation by them.

    References:
        Foerster et al., "DiCE: the infinitely differentiable Monte Carlo estimator", ICML 2018.
        Farquhar, Whiteson and Foerster, "Loaded DiCE: trading off bias and variance in any-order
        score function gradient estimators for reinforcement learning", NeurIPS 2019 (eq. 11, at
        lambda 1).
    """
    _check(log_probs, old_log_probs, advantages)
    upto = log_probs.cumsum(0)
    return (_box(upto) - _box(upto - log_probs)) * advantages


def clipped(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float = 0.2
) -> Tensor:
    """Return PPO's clipped objective. Arguments as for `reinforce`; `functools.partial` sets
    `clip`.

    On new trajectories it is REINFORCE. It is made for several steps on those that `record` has
    kept: where the policy has moved away from the one that drew them by more than `clip`, an
    action's derivative is zero.

    Args:
        log_probs: As there.
        old_log_probs: As there; they matter here.
        advantages: As there.
        clip: Largest change of a ratio of probabilities from 1, strictly between 0 and 1.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes or devices disagree, or `clip` is not strictly between 0 and 1.

    References:
        Schulman et al., "Proximal policy optimization algorithms", arXiv 2017 (eq. 7).
    """
    _check(log_probs, old_log_probs, advantages)
    check_between("clip", clip, 0, 1, fix="Pass clip=0.2.")
    ratio = (log_probs - old_log_probs).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def _box(x: Tensor) -> Tensor:
    return (x - x.detach()).exp()


def _check(*given: Any) -> None:
    for what, value in zip(("log_probs", "old_log_probs", "advantages"), given, strict=True):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise mistyped(what, "be a floating tensor", brief(value), "Pass those of a Rollout.")
    check_one_device("log-probabilities and advantages", given)
    shapes = [tuple(value.shape) for value in given]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        condition = "be of one shape [horizon, num_trajectories]"
        raise invalid(
            "log-probabilities and advantages", condition, shapes, "Pass those of one Rollout."
        )
