"""MAML, a T-net and WarpGrad-style warp layers: what adapts is one argument.

A warp layer is shared by all tasks and stays as it is during adaptation; the outer loop learns it
so that gradient descent on the layers around it goes where it should. A T-net's are matrices,
WarpGrad's may be any network.
"""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import data, evaluate, fit, inner, models, outer


class Warp(nn.Module):
    """y = x + B tanh(A x), the identity at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.A, self.B = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.B(torch.tanh(self.A(x)))


def warped() -> nn.Sequential:
    first, relu1, second, relu2, last = models.mlp(1, [40, 40], 1)
    return nn.Sequential(first, Warp(40), relu1, second, Warp(40), relu2, last)


def main(num_iterations: int) -> None:
    tasks, rule = data.Sinusoid(k_shot=10, num_query=10), inner.SGD(lr=0.01)
    torch.manual_seed(0)
    learners = {
        "MAML": outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, rule, num_steps=1),
        "T-net": outer.TNet(inner.t_net(models.mlp(1, [40, 40], 1)), F.mse_loss, rule, num_steps=1),
        # not the warp layers
        "WarpGrad": outer.MAML(warped(), F.mse_loss, rule, num_steps=1, fast=["0", "3", "6"]),
    }
    for name, learner in learners.items():
        fit(
            learner,
            tasks,
            torch.optim.Adam(learner.parameters(), lr=1e-3),
            num_iterations,
            meta_batch_size=4,
        )
        same_tasks = torch.Generator().manual_seed(1)
        print(f"{name:<8} {evaluate(learner, tasks, num_tasks=600, generator=same_tasks)}")


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 3_000)
