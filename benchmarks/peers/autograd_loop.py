# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.0", "numpy"]
# ///
"""The obvious loop over tasks with `torch.autograd.grad`, and a lower bound of its arithmetic.

The bound treats the examples of all tasks as one task's: as many multiplications, but no separate
weights per task.
"""

import copy
import random
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from _torch import Tasks, criterion, network, system, tasks
from _worker import System, serve
from _workload import Arrays, Workload
from torch.func import functional_call


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    if workload.method == "sample":
        return System(sampler(workload), list, int)
    episodes, model = tasks(arrays, device), network(workload, arrays, device)
    if variant == "floor":
        episodes = Tasks(*(tensor.flatten(0, 1)[None] for tensor in episodes))
    model = model.double() if variant == "in float64" else model  # of tokens, which are no floats
    meta_step = second_order if workload.method == "maml" else first_order
    return system(
        workload, lambda: meta_step(workload, model, episodes), model.parameters(), device
    )


def second_order(workload: Workload, model: nn.Module, episodes: Tasks) -> None:
    loss_of, total = criterion(workload), torch.zeros((), device=episodes.query_x.device)
    for support_x, support_y, query_x, query_y in zip(*episodes, strict=True):
        fast = dict(model.named_parameters())
        advance = Adam(workload.lr) if workload.rule == "adam" else partial(sgd, workload.lr)
        for _ in range(workload.num_steps):
            loss = loss_of(functional_call(model, fast, support_x), support_y)
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = dict(zip(fast, advance(list(fast.values()), grads), strict=True))
        total = total + loss_of(functional_call(model, fast, query_x), query_y)
    (total / len(episodes.query_x)).backward()


def sgd(lr: float, params: list[Any], grads: tuple[Any, ...]) -> list[Any]:
    """Return the parameters after a step of gradient descent."""
    return [param - lr * grad for param, grad in zip(params, grads, strict=True)]


class Adam:
    """The same of Adam, one step after the other."""

    def __init__(self, lr: float) -> None:
        self.lr, self.step = lr, 0
        self.means: list[tuple[Any, Any]] = []

    def __call__(self, params: list[Any], grads: tuple[Any, ...]) -> list[Any]:
        self.step += 1
        self.means = self.means or [(0.0, 0.0)] * len(params)
        pairs = zip(self.means, grads, strict=True)
        self.means = [(0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g) for (m, v), g in pairs]
        first, second = 1 - 0.9**self.step, 1 - 0.999**self.step
        return [
            param - self.lr * (mean / first) / ((square / second).sqrt() + 1e-8)
            for param, (mean, square) in zip(params, self.means, strict=True)
        ]


def first_order(workload: Workload, model: nn.Module, episodes: Tasks) -> None:
    """Take the adapted query gradient or Reptile's difference as the initial weights' gradient."""
    loss_of, start, totals = criterion(workload), list(model.parameters()), []
    for support_x, support_y, query_x, query_y in zip(*episodes, strict=True):
        fast = copy.deepcopy(model)
        params = list(fast.parameters())
        for _ in range(workload.num_steps):
            grads = torch.autograd.grad(loss_of(fast(support_x), support_y), params)
            with torch.no_grad():
                torch._foreach_add_(params, grads, alpha=-workload.lr)
        if workload.method == "reptile":
            totals.append(
                [
                    before.detach() - after.detach()
                    for before, after in zip(start, params, strict=True)
                ]
            )
        else:
            totals.append(torch.autograd.grad(loss_of(fast(query_x), query_y), params))
    for param, *grads in zip(start, *totals, strict=True):
        param.grad = torch.stack(grads).mean(0)


def sampler(workload: Workload) -> Any:
    """Return a function that draws 5-way 1-shot episodes image by image."""
    images = torch.randint(0, 256, (1000, 20, 28, 28), dtype=torch.uint8)

    def draw() -> list[torch.Tensor]:
        episodes = []
        for _ in range(workload.num_tasks):
            parts: list[list[torch.Tensor]] = [[], []]
            for label in random.sample(range(1000), 5):
                chosen = random.sample(range(20), 1 + workload.query // 5)
                parts[0].append(images[label, chosen[0]].float()[None] / 255)
                parts[1] += [images[label, index].float()[None] / 255 for index in chosen[1:]]
            episodes.append([torch.stack(part) for part in parts])
        return [torch.stack(part) for part in zip(*episodes, strict=True)]

    return draw


if __name__ == "__main__":
    serve(build)
