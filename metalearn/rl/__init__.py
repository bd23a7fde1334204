"""Reinforcement learning: environments, policies, and losses from their rollouts."""

from metalearn.rl._advantages import advantages, fitted_values
from metalearn.rl._base import Environment, check_environment
from metalearn.rl._gymnasium import Gymnasium
from metalearn.rl._losses import PolicyLoss, QueryRollouts, SupportRollouts, policy_gradient
from metalearn.rl._navigation import Navigation2D
from metalearn.rl._pendulum import Pendulum
from metalearn.rl._policies import CategoricalPolicy, GaussianPolicy, Policy
from metalearn.rl._record import record
from metalearn.rl._rollout import Rollout, rollout
from metalearn.rl._surrogates import clipped, dice, reinforce
from metalearn.rl._tabular import Tabular, bandit
from metalearn.rl._tasks import FiniteTasks, Tasks, UniformTasks

__all__ = [
    "Environment",
    "check_environment",
    "Navigation2D",
    "Tabular",
    "bandit",
    "Pendulum",
    "Gymnasium",
    "Tasks",
    "UniformTasks",
    "FiniteTasks",
    "Policy",
    "GaussianPolicy",
    "CategoricalPolicy",
    "Rollout",
    "rollout",
    "fitted_values",
    "advantages",
    "reinforce",
    "dice",
    "clipped",
    "PolicyLoss",
    "SupportRollouts",
    "QueryRollouts",
    "policy_gradient",
    "record",
]
