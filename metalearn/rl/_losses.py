"""Policy-gradient losses for learners: they roll out an environment with given parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from metalearn._checks import check_function, check_kind, invalid, mistyped
from metalearn._fields import Check, Checked, Count, Flag, Fraction
from metalearn._modules import below
from metalearn._tree import tree_map
from metalearn.functional import derive_key
from metalearn.rl._advantages import advantages, fitted_values
from metalearn.rl._base import Environment, check_sizes
from metalearn.rl._policies import Policy, check_action_size
from metalearn.rl._rollout import Rollout, log_probs, rollout
from metalearn.rl._surrogates import reinforce
from metalearn.types import Batch, Episode, Params


@dataclass(frozen=True, eq=False)
class PolicyLoss(Checked):
    """Minus a policy's mean return, with a surrogate's derivatives.

    It is a function of parameters, task and key. Its value is minus the return itself, which
    `fit`, `evaluate` and derivative-free estimators thus see.

    Attributes:
        policy: The policy; `params` replaces its parameters of the same names.
        environment: The environment.
        num_trajectories: Number of trajectories, at least 1.
        surrogate: The objective to differentiate: `reinforce`, `dice`, `clipped` or a function like
            these.
        baseline: Whether to subtract a linear baseline, `fitted_values` of the same trajectories.
        discount: Discount factor, from 0 to 1. It affects only the derivatives; the value is
            undiscounted.
        decay: lambda of generalised advantage estimation, from 0 to 1.
        normalise: Whether to normalise advantages to mean 0 and standard deviation 1.
    """

    _what = "{field}"

    policy: Annotated[
        Policy, Check(check_kind, Policy, "a Policy", "one: rl.GaussianPolicy(2, [100, 100], 2)")
    ]
    environment: Annotated[
        Environment, Check(check_kind, Environment, "an Environment", "one: rl.Navigation2D()")
    ]
    num_trajectories: Annotated[Count, "Pass num_trajectories=20."] = 20
    surrogate: Annotated[
        Callable[[Tensor, Tensor, Tensor], Tensor],
        Check(check_function),
        "Pass rl.reinforce or rl.dice.",
    ] = reinforce
    baseline: Annotated[Flag, "Pass baseline=True."] = True
    discount: Annotated[Fraction, "Pass discount=0.99."] = 0.99
    decay: Annotated[Fraction, "Pass decay=0.99."] = 1.0
    normalise: Annotated[Flag, "Pass normalise=True."] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self.environment)
        check_action_size(self.environment, self.policy)

    def __call__(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar; each step has new trajectories."""
        new, old_log_probs = self._trajectories({**params, **below("model", shared)}, batch, step)
        seen, rewards = new.observations, new.rewards
        values = fitted_values(seen, rewards, self.discount) if self.baseline else None
        gains = advantages(rewards, values, self.discount, self.decay)
        if self.normalise:
            gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-8)
        loss = -self.surrogate(new.log_probs, old_log_probs, gains).sum(0).mean()
        return loss - loss.detach() - rewards.sum(0).mean()

    def rollout(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Rollout:
        """Return the trajectories of the loss at a step."""
        x = _task_and_key(batch)
        params, key = {**params, **below("model", shared)}, derive_key(x["key"], step)
        return rollout(self.environment, self.policy, params, x["task"], key, self.num_trajectories)

    def _trajectories(self, params: Params, batch: Batch, step: int) -> tuple[Rollout, Tensor]:
        """Return new or recorded trajectories, and the log-probabilities that drew them."""
        if "recorded" not in _task_and_key(batch):
            new = self.rollout(params, {}, batch, step)
            return new, new.log_probs.detach()
        if step >= (most := len(batch.x["recorded"].rewards)):
            fix = f"Pass num_steps={most}, or the episodes that were given to rl.record."
            raise invalid("inner steps on kept trajectories", f"be at most {most}", step + 1, fix)
        kept: Rollout = tree_map(lambda leaf: leaf[step], batch.x["recorded"])
        now = log_probs(self.policy, params, kept.observations, kept.actions)
        return kept._replace(log_probs=now), kept.log_probs


Loss = Annotated[
    PolicyLoss, Check(check_kind, PolicyLoss, "a PolicyLoss", "rl.PolicyLoss(policy, environment)")
]


@dataclass(frozen=True, eq=False)
class SupportRollouts(Checked):
    """A loss as a learner's `support_loss`: trajectories of the policy at each inner step."""

    loss: Loss

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss for the support set's key and the step."""
        return self.loss(params, shared, episode.support, step)


@dataclass(frozen=True, eq=False)
class QueryRollouts(Checked):
    """A loss as a learner's `query_loss`: trajectories of the adapted policy."""

    loss: Loss

    def __call__(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss for the query set's key."""
        return self.loss(params, shared, episode.query)


def policy_gradient(
    policy: Policy,
    environment: Environment,
    *,
    num_support: int = 20,
    num_query: int = 40,
    surrogate: Callable[[Tensor, Tensor, Tensor], Tensor] = reinforce,
    query_surrogate: Callable[[Tensor, Tensor, Tensor], Tensor] = reinforce,
    baseline: bool = True,
    discount: float = 0.99,
    decay: float = 1.0,
    normalise: bool = True,
) -> dict[str, Any]:
    """Return the two losses of policy-gradient meta-learning, as arguments for a learner.

    Args:
        policy: The policy, also the learner's model.
        environment: The environment.
        num_support: Number of trajectories in each inner step, at least 1.
        num_query: Number of trajectories of the adapted policy, at least 1.
        surrogate: Surrogate of the inner loss; `dice` makes the derivative through it unbiased,
            with `baseline=False, normalise=False, discount=1.0`.
        query_surrogate: Surrogate of the outer loss.
        baseline: Whether both losses subtract a linear baseline.
        discount: Discount factor of both losses, from 0 to 1.
        decay: lambda of generalised advantage estimation in both losses, from 0 to 1.
        normalise: Whether both losses normalise advantages to mean 0 and standard deviation 1.

    Returns:
        "support_loss" and "query_loss".

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count or a factor is out of range.

    >>> from metalearn import inner, outer, rl
    >>> policy, tasks = rl.GaussianPolicy(2, [8], 2), rl.UniformTasks((-0.5, -0.5), (0.5, 0.5))
    >>> losses = policy_gradient(policy, rl.Navigation2D(horizon=5))
    >>> learner = outer.MAML(policy, None, inner.SGD(lr=0.01), num_steps=1, **losses)
    >>> learner(tasks.sample(2)).backward()
    """
    options = (baseline, discount, decay, normalise)
    support = PolicyLoss(policy, environment, num_support, surrogate, *options)
    query = PolicyLoss(policy, environment, num_query, query_surrogate, *options)
    return {"support_loss": SupportRollouts(support), "query_loss": QueryRollouts(query)}


def _task_and_key(batch: Batch) -> dict[str, Any]:
    if not (isinstance(batch.x, dict) and "task" in batch.x and "key" in batch.x):
        fix = "Sample tasks from rl.UniformTasks or rl.FiniteTasks."
        raise mistyped("batch", "hold a dict of 'task' and 'key'", type(batch.x).__name__, fix)
    return batch.x
