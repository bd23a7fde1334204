"""Surrogate objectives whose derivatives estimate those of the expected return."""

from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_between, check_one_device, invalid, mistyped


def reinforce(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return REINFORCE's objective, whose first derivative alone is that of the return.

    MAML was published with it. Its derivative through an inner step lacks the dependence of the
    trajectories' distribution on the parameters.

    Args:
        log_probs: Log-probabilities of the actions, `[horizon, num_trajectories]`.
        old_log_probs: Log-probabilities when the actions were drawn, detached; ignored here.
        advantages: Advantages of the same shape, detached.

    Returns:
        Each action's contribution to the return, `[horizon, num_trajectories]`, to be summed over
        time.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: If shapes or devices disagree.

    References:
        Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
        learning", Machine Learning 1992.
    """
    _check(log_probs, old_log_probs, advantages)
    return log_probs * advantages


def dice(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return DiCE's objective, all of whose derivatives are those of the return.

    Arguments are as for `reinforce`. With box(x) = exp(x - detach(x)) and W_t the sum of
    log-probabilities up to t, it is (box(W_t) - box(W_t-1)) A_t. The derivatives are unbiased if
    the advantages are: with a discount of 1, and without normalisation or a baseline fitted to the
    same trajectories.

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
    """Return PPO's clipped objective; set `clip` with `functools.partial`.

    On new trajectories it is REINFORCE. It allows several steps on recorded trajectories: an
    action's derivative vanishes once the policy has moved away from the one that drew the action by
    more than `clip`.

    Args:
        log_probs: As for `reinforce`.
        old_log_probs: As for `reinforce`, but not ignored.
        advantages: As for `reinforce`.
        clip: Largest deviation of the probability ratio from 1, strictly between 0 and 1.

    Raises:
        TypeError: If an argument has the wrong type.
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
    what = "log-probabilities and advantages"
    check_one_device(what, given)
    shapes = [tuple(value.shape) for value in given]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        condition = "be of one shape [horizon, num_trajectories]"
        raise invalid(what, condition, shapes, "Pass those of one Rollout.")
