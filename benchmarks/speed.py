"""A second-order meta-iteration against the loop that everybody first writes: `python -m benchmarks.speed`.

MLP 1-40-40-1, 10 support and 10 query points, 5 inner steps. The loop goes over tasks with
`torch.autograd.grad(create_graph=True)`; both do the same work and end with gradients in `.grad`. Rounds alternate
between the systems, in one process; medians and their ratio are printed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call

from metalearn import data, inner, keep_large_blocks, models, outer
from metalearn.types import Episode


def loop(model: torch.nn.Module, episodes: Episode, lr: float, num_steps: int) -> torch.Tensor:
    """Return the meta-loss of MAML by a loop over tasks."""
    names, total = [name for name, _ in model.named_parameters()], torch.zeros(())
    for index in range(len(episodes.support.x)):
        params = list(model.parameters())
        for _ in range(num_steps):
            output = functional_call(model, dict(zip(names, params, strict=True)), episodes.support.x[index])
            loss = F.mse_loss(output, episodes.support.y[index])
            grads = torch.autograd.grad(loss, params, create_graph=True)
            params = [param - lr * grad for param, grad in zip(params, grads, strict=True)]
        output = functional_call(model, dict(zip(names, params, strict=True)), episodes.query.x[index])
        total = total + F.mse_loss(output, episodes.query.y[index])
    return total / len(episodes.support.x)


def seconds(step: Callable[[], torch.Tensor], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step().backward()
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 25, 100])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="measure the compiled step too")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    model = models.mlp(1, [40, 40], 1)
    learners = {
        "unrolled": outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=5),
        "stepwise": outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=5, estimator=outer.Stepwise()),
    }
    if arguments.compile:
        learners["unrolled, compiled"] = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=5, compile=True)
    results = []
    print(f"torch {torch.__version__}, 1 thread, medians of {arguments.rounds} alternating rounds")
    for num_tasks in arguments.tasks:
        episodes = data.Sinusoid(k_shot=10, num_query=10).sample(num_tasks)
        steps = {"loop of autograd.grad": lambda e=episodes: loop(model, e, 0.01, 5)}
        steps |= {name: lambda e=episodes, run=learner: run(e) for name, learner in learners.items()}
        gradients = {}
        for name, step in steps.items():
            model.zero_grad()
            step().backward()
            gradients[name] = torch.cat([param.grad.flatten() for param in model.parameters()])
        times: dict[str, list[float]] = {name: [] for name in steps}
        for round_ in range(arguments.rounds + 1):
            for name, step in steps.items():
                measured = seconds(step, calls=max(1, 50 // num_tasks))
                if round_ > 0:  # the first round warms up
                    times[name].append(measured)
        reference = statistics.median(times["loop of autograd.grad"])
        for name in steps:
            median = statistics.median(times[name])
            difference = (gradients[name] - gradients["loop of autograd.grad"]).norm() / gradients[name].norm()
            row = {
                "tasks": num_tasks,
                "system": name,
                "milliseconds": 1e3 * median,
                "ratio": reference / median,
            }
            results.append(row | {"relative difference of the gradient": difference.item()})
            print(
                f"{num_tasks:4} tasks  {name:<22} {1e3 * median:8.2f} ms  {reference / median:6.2f}x  {difference:.0e}"
            )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "speed.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    keep_large_blocks()
    main()
