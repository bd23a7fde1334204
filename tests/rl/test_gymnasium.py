import copy
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from metalearn import inner, outer, rl
from tests.rl.cases import played

GOALS = rl.UniformTasks((-0.5, -0.5), (0.5, 0.5))


class Point(gymnasium.Env):
    """`rl.Navigation2D`, as Gymnasium would have it; it may end at its goal."""

    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float64)
    action_space = spaces.Box(-0.1, 0.1, (2,), np.float64)
    goal, radius = np.zeros(2), 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(2)
        return self.place, {}

    def step(self, action):
        assert (abs(action) <= 0.1).all()
        self.place = self.place + action
        distance = np.linalg.norm(self.place - self.goal)
        return self.place, -distance, bool(distance < self.radius), False, {}


class Noise(Point):
    """An environment that starts anywhere, and whose actions are three."""

    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2)
        return self.place, {}

    def step(self, action):
        self.place = self.place + np.array([0.0, action])
        return self.place, float(action), False, False, {}


class Images(Point):
    observation_space = spaces.Box(0.0, 1.0, (3, 8, 8))


class Square(Point):
    """A point that has arrived in a square of goals."""

    radius = 0.2


def vector(kind):
    return lambda count: gymnasium.vector.SyncVectorEnv([kind] * count)


def set_goal(environment, goal):
    environment.set_attr("goal", goal)


def of_points(count):
    return vector(Point)(count)


POINTS = rl.Gymnasium(of_points, 5, set_goal)


def learner_of(environment, policy, **options):
    losses = rl.policy_gradient(policy, environment, num_support=4, num_query=3)
    return outer.MAML(policy, None, inner.SGD(0.01), num_steps=2, **losses, **options)


def new_policy():
    torch.manual_seed(0)
    return rl.GaussianPolicy(2, [4], 2, init_std=0.1).double()


def test_the_meta_gradient_is_that_of_the_same_environment_in_torch():
    episodes, keys = (
        GOALS.sample(2, generator=torch.Generator().manual_seed(0)),
        torch.tensor([3, 4]),
    )
    gradients = []
    for environment in (rl.Navigation2D(horizon=5), POINTS):
        policy = new_policy()
        learner_of(environment, policy, batching="loop")(episodes, keys=keys).backward()
        gradients.append([param.grad for param in policy.parameters()])
    for expected, actual in zip(*gradients, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-10, atol=1e-12)


def test_functions_are_pure():
    rl.check_environment(rl.Gymnasium(vector(Noise), 5), torch.zeros(1), torch.tensor([0, 1, 2]))
    rl.check_environment(POINTS, torch.tensor([0.5, 0.5]), torch.ones(3, 2))
    # A step from an older state, after the simulator has gone on.
    state = POINTS.reset(torch.tensor([0.5, 0.5]), torch.full((3, 1), 0.3))
    steps = [torch.full((3, 2), value) for value in (0.02, -0.05, 0.1)]
    for action in steps[:2]:
        state, _ = POINTS.step(state, action, torch.zeros(3, 1))
    first = POINTS.step(state, steps[2], torch.zeros(3, 1))
    POINTS.step(first[0], steps[0], torch.zeros(3, 1))
    again = POINTS.step(state, steps[2], torch.zeros(3, 1))
    assert torch.equal(first[1], again[1])
    assert torch.allclose(again[0]["observation"], torch.full((3, 2), 0.07))


def test_the_key_is_the_seed_and_the_task_is_set():
    policy = rl.CategoricalPolicy(2, [], 3)
    environment = rl.Gymnasium(vector(Noise), 4)
    first, same, other = (
        played(environment, policy, torch.zeros(1), 3, seed) for seed in (7, 7, 8)
    )
    assert torch.equal(first.observations, same.observations)
    assert not torch.isclose(first.observations[0], other.observations[0]).any()
    assert torch.equal(first.rewards, first.actions.float())
    goal = torch.tensor([3.0, 4.0])
    assert torch.allclose(
        played(POINTS, new_policy().float(), goal, 2).rewards[0], torch.tensor(-5.0), atol=0.2
    )


def test_an_episode_that_has_ended_is_paid_nothing_more():
    environment = rl.Gymnasium(vector(Square), 5, set_goal)
    state = environment.reset(torch.tensor([0.25, 0.0]), torch.full((2, 1), 0.5))
    rewards, places = [], []
    for _ in range(4):
        state, reward = environment.step(
            state, torch.tensor([[0.1, 0.0], [0.0, 0.0]]), torch.zeros(2, 1)
        )
        rewards.append(reward)
        places.append(state["observation"][:, 0])
    assert torch.allclose(torch.stack(rewards)[:, 0], torch.tensor([-0.15, 0.0, 0.0, 0.0]))
    assert torch.allclose(torch.stack(rewards)[:, 1], torch.tensor(-0.25))
    assert torch.allclose(torch.stack(places)[:, 0], torch.tensor(0.1))


@pytest.mark.parametrize(("mass", "length"), [(1.0, 1.0), (0.8, 1.3)])
def test_the_pendulum_is_gymnasiums(mass, length):
    """With a torque that counts, and one beyond its bound."""
    simulator = gymnasium.make("Pendulum-v1").unwrapped
    simulator.reset(seed=3)
    simulator.m, simulator.l = mass, length
    environment = rl.Pendulum()
    noise = torch.zeros(1, 2, dtype=torch.float64)
    state = environment.reset(noise.new_tensor([mass, length]), noise)
    angle, velocity = noise.new_tensor(simulator.state)[:, None]
    state = {**state, "angle": angle, "velocity": velocity}
    for action in 10 * (0.9, -1.7, 1.0, -0.4, 3.0):
        seen, expected, *_ = simulator.step(np.array([2 * action]))
        state, reward = environment.step(state, noise.new_tensor([[action]]), noise)
        assert reward.item() == pytest.approx(float(expected), abs=1e-9)
        assert environment.observe(state)[0].tolist() == pytest.approx(
            [seen[0], seen[1], seen[2] / 8], abs=1e-6
        )


def test_copies_have_simulators_of_their_own():
    for made in (copy.deepcopy(POINTS), pickle.loads(pickle.dumps(POINTS))):
        assert made.simulator(1) is not POINTS.simulator(1)
        assert made.horizon == 5


def test_bad_input():
    with pytest.raises(
        TypeError,
        match=r"make must be a function .* got 'Pendulum-v1'\. Write rl\.Gymnasium\(lambda",
    ):
        rl.Gymnasium("Pendulum-v1", 5)
    with pytest.raises(ValueError, match="horizon must be at least 1; got 0"):
        rl.Gymnasium(of_points, 0)
    with pytest.raises(
        TypeError, match="set_task must be a function of environment and task; got 3"
    ):
        rl.Gymnasium(of_points, 5, 3)
    with pytest.raises(
        ValueError,
        match=r"must have observations that are vectors.*\(3, 8, 8\).*FlattenObservation",
    ):
        rl.Gymnasium(vector(Images), 5)
    with pytest.raises(
        TypeError, match=r"task of a Gymnasium environment must be a tensor; got \{"
    ):
        POINTS.reset({"goal": torch.zeros(2)}, torch.zeros(1, 1))
    with pytest.raises(
        ValueError, match=r'batching must be "loop" for Gymnasium .*; got vmap\. Pass batching'
    ):
        learner_of(POINTS, new_policy())(GOALS.sample(2))


class Shifted(Point):
    action_space = spaces.Discrete(3, start=5)


def test_environments_of_other_kinds():
    with pytest.raises(TypeError, match=r"must be a vector environment; got .*Write rl\.Gymnasium"):
        rl.Gymnasium(lambda count: gymnasium.make("Pendulum-v1"), 5)
    with pytest.raises(ValueError, match=r"actions that are vectors or discrete; .*start=5"):
        rl.Gymnasium(vector(Shifted), 5)


def test_a_rollout_steps_once_an_action(monkeypatch):
    counts = {"step": 0, "reset": 0}
    for name in counts:
        plain = getattr(Point, name)

        def counted(self, *args, name=name, plain=plain, **kwargs):
            counts[name] += 1
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(Point, name, counted)
    state = POINTS.reset(torch.tensor([0.5, 0.5]), torch.full((1, 1), 0.7))
    for _ in range(5):
        state, _ = POINTS.step(state, torch.ones(1, 2), torch.zeros(1, 1))
    assert counts == {"step": 5, "reset": 1}
