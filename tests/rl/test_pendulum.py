import math

import torch

from metalearn import rl


def test_the_pendulum_keeps_its_energy():
    environment = rl.Pendulum()
    state = environment.reset(torch.tensor([1.0, 1.0]), torch.tensor([[0.9, 0.5]]))

    def energy(state):  # 1/6 v^2 + 5 cos(angle), for a rod of mass and length 1 under gravity of 10
        return state["velocity"].square() / 6 + 5 * state["angle"].cos()

    start = energy(state)
    for _ in range(20):
        state, _ = environment.step(state, torch.zeros(1, 1), torch.zeros(1, 2))
        assert abs(energy(state) - start) < 0.2


def test_the_pendulum_pays_nothing_upright():
    environment = rl.Pendulum()
    at = {
        "angle": torch.tensor([0.0, math.pi]),
        "velocity": torch.zeros(2),
        "pendulum": torch.ones(2, 2),
    }
    _, reward = environment.step(at, torch.zeros(2, 1), torch.zeros(2, 2))
    assert torch.allclose(reward, torch.tensor([0.0, -(math.pi**2)]))


def test_the_velocity_is_bounded():
    environment = rl.Pendulum()
    state = environment.reset(torch.ones(2), torch.full((2, 2), 0.5))
    state = {**state, "angle": torch.tensor([1.5, -1.5]), "velocity": torch.tensor([7.9, -7.9])}
    after, _ = environment.step(state, torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 2))
    assert after["velocity"].tolist() == [8.0, -8.0]
