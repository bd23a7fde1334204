from dataclasses import dataclass

import pytest
import torch

from metalearn import inner, outer, rl


@dataclass(frozen=True)
class Walk(rl.Environment):
    """A walk on a line, as it should be."""

    horizon, observation_size, action_size, noise_size = 3, 1, 1, 1

    def reset(self, task, noise):
        return {"place": noise.clone(), "goal": task.expand(len(noise), 1)}

    def observe(self, state):
        return state["place"]

    def step(self, state, action, noise):
        place = state["place"] + action + noise
        return {**state, "place": place}, -(place - state["goal"]).square().sum(-1)


class Draws(Walk):
    def step(self, state, action, noise):
        state, reward = super().step(state, action, noise)
        return state, reward + torch.randn(len(reward))


class InPlace(Walk):
    def step(self, state, action, noise):
        state["place"] += action
        return state, -state["place"].square().sum(-1)


class RewardOfShape1(Walk):
    def step(self, state, action, noise):
        state, reward = super().step(state, action, noise)
        return state, reward[:, None]


class RewardAlone(Walk):
    def step(self, state, action, noise):
        return super().step(state, action, noise)[1]


class Forgets(Walk):
    def step(self, state, action, noise):
        state, reward = super().step(state, action, noise)
        return {"place": state["place"]}, reward


class Unexpanded(Walk):
    def reset(self, task, noise):
        return {"place": noise.clone(), "goal": task}


class WrongObservation(Walk):
    def observe(self, state):
        return torch.cat([state["place"], state["goal"]], -1)


class NoHorizon(Walk):
    horizon = None


WRONG = [
    (Draws, "Draws.step must be a pure function; got two results .* Draw from `noise`"),
    (
        InPlace,
        (
            "InPlace.step must leave its arguments as they are; got a change in place. Write "
            "`place = place"
        ),
    ),
    (
        RewardOfShape1,
        r"RewardOfShape1.step's reward must be of shape \(4,\); got \(4, 1\)\. Sum over",
    ),
    (
        RewardAlone,
        (
            "RewardAlone.step must return the next state and the reward; got Tensor. Write "
            "`return state, "
        ),
    ),
    (
        Forgets,
        r"Forgets.step must return states shaped as they come, .*; got \[\(4, 1\)\]\. Return",
    ),
    (
        Unexpanded,
        (
            r"Unexpanded.reset must return states of tensors \[num_trajectories = 4, \.\.\.\]; "
            r"got .* Expand"
        ),
    ),
    (
        WrongObservation,
        r"WrongObservation.observe must be of shape \(4, 1\); got \(4, 2\)\. Return",
    ),
    (NoHorizon, "NoHorizon.horizon must be an int; got None. Write `horizon = 2`"),
]


def test_accepts_what_keeps_the_protocol():
    for environment, task in [
        (Walk(), torch.zeros(1)),
        (rl.Navigation2D(), torch.zeros(2)),
        (rl.Pendulum(), torch.ones(2)),
    ]:
        rl.check_environment(environment, task, torch.ones(4, environment.action_size))
    rl.check_environment(rl.bandit(3), torch.zeros(1, 3), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("environment", "message"), WRONG, ids=lambda value: getattr(value, "__name__", "")
)
def test_names_what_is_wrong(environment, message):
    with pytest.raises((TypeError, ValueError), match=message):
        rl.check_environment(environment(), torch.zeros(1), torch.ones(4, 1))


def test_names_an_action_of_another_size():
    with pytest.raises(
        ValueError, match=r"action must be \[num_trajectories, 1\], or indices .*; got \(4, 2\)"
    ):
        rl.check_environment(Walk(), torch.zeros(1), torch.ones(4, 2))


@pytest.mark.parametrize("environment", [Draws, RewardOfShape1])
def test_a_learner_says_so_at_its_first_call(environment):
    policy = rl.GaussianPolicy(1, [], 1)
    losses = rl.policy_gradient(policy, environment(), num_support=4)
    learner = outer.MAML(policy, None, inner.SGD(0.01), num_steps=1, **losses)
    with pytest.raises(
        ValueError, match=rf"{environment.__name__}.step.* must be .*; got .*\. (Draw|Sum)"
    ):
        learner(rl.UniformTasks((-1.0,), (1.0,)).sample(2))
