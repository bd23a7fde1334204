"""MAML with policy gradients: a point learns to find an unseen goal within few trajectories.

The setting is that of Finn et al. (2017), section 5.3. MAML is compared with a policy trained for
all goals and with a new one, each after 0 to 3 steps of adaptation. The others use their best rate
after 3 steps. About ten minutes on one CPU core.
"""

import sys

import torch
from torch.func import vmap
from torch.optim.lr_scheduler import LinearLR

from metalearn import evaluate, fit, inner, outer, rl

ENVIRONMENT = rl.Navigation2D()
TASKS = rl.UniformTasks((-0.5, -0.5), (0.5, 0.5))
RATES = (1e-5, 2e-5, 4e-5, 8e-5)
"""Of an inner step, tried for policies that were not trained to adapt. MAML has 4e-5."""


def new_policy(seed: int) -> rl.GaussianPolicy:
    torch.manual_seed(seed)
    return rl.GaussianPolicy(2, [100, 100], 2, init_std=0.05)


def maml(policy: rl.GaussianPolicy, rate: float = 4e-5) -> outer.MetaLearner:
    # MT-net is outer.MTNet(inner.t_net(policy), ...) in place of it, Meta-SGD inner.MetaSGD(rate)
    # in place of SGD.
    losses = rl.policy_gradient(policy, ENVIRONMENT, num_support=20, num_query=40)
    return outer.MAML(policy, None, inner.SGD(rate), num_steps=3, **losses)


def adam(module: torch.nn.Module, num_iterations: int) -> tuple[torch.optim.Adam, LinearLR]:
    """Return Adam, and the schedule that brings its rate to zero."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    return optimizer, LinearLR(optimizer, 1.0, 0.0, total_iters=num_iterations)


def train_for_all_goals(policy: rl.GaussianPolicy, num_iterations: int) -> None:
    """Train one policy on the query loss without adaptation."""
    loss, params = rl.PolicyLoss(policy, ENVIRONMENT, 40), dict(policy.named_parameters())
    optimizer, scheduler = adam(policy, num_iterations)
    for _ in range(num_iterations):
        optimizer.zero_grad()
        vmap(lambda batch: loss(params, {}, batch))(TASKS.sample(10).query).mean().backward()
        optimizer.step()
        scheduler.step()


def returns(learner: outer.MetaLearner, num_tasks: int) -> list[float]:
    """Return the mean return after 0 to 3 steps, on the same goals at every call."""
    means = []
    for num_steps in range(4):
        generator = torch.Generator().manual_seed(1)
        evaluation = evaluate(
            learner, TASKS, num_tasks=num_tasks, num_steps=num_steps, generator=generator
        )
        means.append(-evaluation["loss"].values.mean().item())  # the loss is minus the return
    return means


def show(name: str, means: list[float]) -> None:
    print(f"{name:12}" + "".join(f"{mean:9.1f}" for mean in means), flush=True)


def main(num_iterations: int = 500, num_tasks: int = 40, seed: int = 0) -> None:
    learner, pretrained = maml(new_policy(seed)), new_policy(seed)
    print("return after 0 to 3 steps", flush=True)
    optimizer, scheduler = adam(learner, num_iterations)
    fit(learner, TASKS, optimizer, num_iterations, meta_batch_size=10, scheduler=scheduler)
    show("MAML", returns(learner, num_tasks))
    train_for_all_goals(pretrained, num_iterations)
    for name, policy in {"pretrained": pretrained, "random": new_policy(seed)}.items():
        tried = [returns(maml(policy, rate), num_tasks) for rate in RATES]
        show(name, max(tried, key=lambda means: means[-1]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
