# /// script
# requires-python = ">=3.11"
# dependencies = ["betty-ml==0.2.1", "torch==2.15.0", "numpy"]
# ///
"""Betty: one model that goes on, and hypergradients at where it is."""

from typing import Any

import torch
import torch.nn as nn
from _bilevel import Bilevel, Tensors, serve
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.problems import ImplicitProblem
from torch import Tensor

STEPS = {"darts": 10, "sama": 10, "cg": 10, "neumann": 10}


class Vector(nn.Module):
    """A vector as a module."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value) if not isinstance(value, nn.Parameter) else value


def build(variant: str, problem: Bilevel, data: Tensors, hyper: Tensor, params: Tensor) -> Any:
    class Outer(ImplicitProblem):
        def training_step(self, batch: Any) -> Tensor:
            return problem.outer(self.module.value, self.inner.module.value, data)

    class Inner(ImplicitProblem):
        def training_step(self, batch: Any) -> Tensor:
            return problem.inner(self.outer.module.value, self.module.value, data)

    upper, lower = Vector(hyper.detach()), Vector(params)
    settings = Config(
        type=variant,
        unroll_steps=STEPS[variant],
        cg_iterations=10,
        cg_alpha=1.0,
        neumann_iterations=10,
        neumann_alpha=problem.rate,
    )
    loader = [[torch.zeros(1)]]  # all data are there at every step
    outer = Outer(
        "outer",
        Config(retain_graph=True),
        upper,
        torch.optim.Adam(upper.parameters(), problem.outer_rate),
        train_data_loader=loader,
    )
    inner = Inner(
        "inner",
        settings,
        lower,
        torch.optim.SGD(lower.parameters(), problem.rate),
        train_data_loader=loader,
    )
    dependencies = {"u2l": {outer: [inner]}, "l2u": {inner: [outer]}}
    engine = Engine([outer, inner], EngineConfig(strategy="cpu"), dependencies)

    def step() -> None:
        for _ in range(STEPS[variant]):
            engine.global_step += 1
            engine.train_step()

    return step


if __name__ == "__main__":
    serve(build)
