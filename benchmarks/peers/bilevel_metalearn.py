"""This library: variants are estimators with their number of inner steps."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from _bilevel import Bilevel, Loss, Tensors, serve
from torch import Tensor

from metalearn import inner, outer
from metalearn.types import Batch, Episode

Variant = Callable[[float], tuple[Any, int]]
"""From the rate of the inner loop to an estimator and its number of steps."""
VARIANTS: dict[str, Variant] = {
    "Unrolled, 100 steps": lambda rate: (outer.Unrolled(), 100),
    "Stepwise, 100 steps": lambda rate: (outer.Stepwise(), 100),
    "Unrolled(truncate=10), 100 steps": lambda rate: (outer.Unrolled(truncate=10), 100),
    "ForwardGradient(10), 100 steps": lambda rate: (outer.ForwardGradient(10), 100),
    "EvolutionStrategies(10), 100 steps": lambda rate: (outer.EvolutionStrategies(10, 0.1), 100),
    "PersistentES(10)": lambda rate: (outer.PersistentES(10, 0.1, horizon=100), 10),
    "Implicit, CG(10)": lambda rate: (outer.Continued(outer.Implicit(0.0, outer.CG(10))), 10),
    "Implicit, AmIGO": lambda rate: (_warm(outer.Neumann(10, rate)), 10),
    "Implicit, SOBA": lambda rate: (_warm(outer.Neumann(1, rate)), 1),
    "Implicit, differences": lambda rate: (_warm(outer.CG(2), epsilon=0.01), 10),
    "OneStep": lambda rate: (outer.Continued(outer.OneStep()), 1),
    "Unrolled windows": lambda rate: (outer.Continued(outer.Unrolled()), 10),
    "Implicit, one step": lambda rate: (_warm(outer.CG(1)), 1),
    "Penalty, one step": lambda rate: (outer.Continued(outer.Penalty(100.0, warm_start=True)), 1),
    "Penalty": lambda rate: (outer.Continued(outer.Penalty(100.0, warm_start=True)), 5),
}


def _warm(solver: outer.Solver, **options: Any) -> outer.MetaGradient:
    return outer.Continued(outer.Implicit(0.0, solver, warm_start=True, **options))


class Vectors(nn.Module):
    """Parameters, which are fast, and hyperparameters, which are shared."""

    def __init__(self, params: Tensor, hyper: Tensor) -> None:
        super().__init__()
        self.params, self.hyper = nn.Parameter(params), nn.Parameter(hyper)


class On:
    """One of the two losses, as a learner calls it."""

    def __init__(self, level: Loss) -> None:
        self.level = level

    def __call__(self, params: Any, shared: Any, episode: Episode, step: int = 0) -> Tensor:
        return self.level(shared["model.hyper"], params["params"], episode.query.x)


def build(
    variant: str, problem: Bilevel, data: Tensors, hyper: Tensor, params: Tensor
) -> Callable[[], object]:
    name = variant.removesuffix(", compiled")
    estimator, num_steps = VARIANTS[name](problem.rate)
    model = Vectors(params, hyper.detach())
    learner = outer.MetaLearner(
        model,
        None,
        inner.SGD(problem.rate),
        num_steps=num_steps,
        estimator=estimator,
        fast="params",
        learn_init=False,
        support_loss=On(problem.inner),
        query_loss=On(problem.outer),
    )
    all_data = Batch({name: value[None] for name, value in data.items()})
    episode = Episode(all_data, all_data)
    optimizer = torch.optim.Adam([model.hyper], problem.outer_rate)
    if variant.endswith(", compiled"):
        compiled = learner.compiled_step(optimizer)
        return lambda: compiled(episode)

    def step() -> None:
        optimizer.zero_grad()
        learner(episode).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    serve(build)
