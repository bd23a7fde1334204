"""Bilevel problems as functions of tensors, so that every library optimises the same one.

Hyperparameters are one vector, and so are parameters, which start at zero. All losses are of all
examples. Of benchopt's benchmark_bilevel are "quadratic" and "logistic", of full batches. Penalties
are below 1, where the inner rate is stable; exp(hyper) would grow without bound where a feature
says nothing.
"""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor, Tensors], Tensor]
CLASSES, SNAPSHOTS = 10, 12


@dataclass(frozen=True)
class Bilevel:
    """A problem.

    Attributes:
        inner: `(hyper, params, data) -> scalar`, minimised by the parameters.
        outer: `(hyper, params, data) -> scalar`, minimised by the hyperparameters at that minimum.
        rate: Rate of inner gradient descent, a little below what its curvature allows.
        outer_rate: Rate of Adam on hyperparameters.
    """

    inner: Loss
    outer: Loss
    rate: float
    outer_rate: float


def _scores(params: Tensor, x: Tensor) -> Tensor:
    weight = params.view(-1, CLASSES)
    return x @ weight[:-1] + weight[-1]


def _on_validation(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
    return F.cross_entropy(_scores(params, data["val_x"]), data["val_y"])


def _weighted(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
    each = F.cross_entropy(_scores(params, data["x"]), data["y"], reduction="none")
    return (hyper.sigmoid() * each).mean() + 1e-3 * params.square().sum()


def _penalised(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
    loss = F.cross_entropy(_scores(params, data["x"]), data["y"])
    return loss + 0.5 * (hyper.sigmoid() * params.square()).sum()


def _logistic(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
    loss = F.softplus(-data["y"] * (data["x"] @ params)).mean()
    return loss + 0.5 * (hyper.sigmoid() * params.square()).sum()


def _logistic_on_validation(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
    return F.softplus(-data["val_y"] * (data["val_x"] @ params)).mean()


def _quadratic(level: str) -> Loss:
    def loss(hyper: Tensor, params: Tensor, data: Tensors) -> Tensor:
        names = ("params", "hyper", "cross", "linear_params", "linear_hyper")
        of_params, of_hyper, cross, linear, linear_hyper = (
            data[f"{level}_{name}"] for name in names
        )
        squares = params @ of_params @ params + hyper @ of_hyper @ hyper
        return 0.5 * squares + hyper @ cross @ params + linear @ params + linear_hyper @ hyper

    return loss


PROBLEMS = {
    "cleaning": Bilevel(_weighted, _on_validation, 0.5, 0.3),
    "penalties": Bilevel(_penalised, _on_validation, 0.3, 0.3),
    "logistic": Bilevel(_logistic, _logistic_on_validation, 0.5, 0.1),
    "quadratic": Bilevel(_quadratic("inner"), _quadratic("outer"), 0.5, 0.05),
}


def serve(build: Callable[[str, Bilevel, Tensors, Tensor, Tensor], Callable[[], object]]) -> None:
    """Optimise problems for as many seconds each as the command line says, and write where it led.

    Args:
        build: Of the variant, the problem, the data, the hyperparameters, which what it returns
            changes in place at every call, and the parameters' start.
    """
    variant, name, seconds, out, *given = sys.argv[1:]
    result = {}
    try:
        for seed, file in enumerate(given):
            data = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
            hyper = data.pop("start").clone().requires_grad_()
            params = torch.zeros(len(data.pop("params")))
            step = build(variant, PROBLEMS[name], data, hyper, params)
            times, hypers, count = _followed(step, hyper, float(seconds))
            result |= {f"times{seed}": times, f"hypers{seed}": hypers, f"count{seed}": count}
    except Exception as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    np.savez(out, **result)


def _followed(step: Callable[[], object], hyper: Tensor, seconds: float) -> tuple[Any, Any, int]:
    """Return times and where the hyperparameters were, at about equal ratios, and the steps taken.

    Times are CPU times; what a library does in its first step alone is not counted.
    """
    times, hypers, elapsed, count = [0.0], [hyper.detach().numpy().copy()], 0.0, 1
    step()
    wanted = iter(np.geomspace(seconds / 50, seconds, SNAPSHOTS).tolist())
    due = next(wanted)
    while elapsed < seconds:
        start = time.process_time()
        step()
        elapsed += time.process_time() - start
        count += 1
        if elapsed >= due:
            times.append(elapsed)
            hypers.append(hyper.detach().numpy().copy())
            while due <= elapsed:
                due = next(wanted, np.inf)
    return np.array(times), np.array(hypers), count
