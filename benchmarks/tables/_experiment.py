"""What a table consists of, how its learners are trained, and how ours is set beside the paper's."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from metalearn import History, data, evaluate, fit, outer


@dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        seeds: Number of replicas, trained side by side.
        device: Where.
        fraction: Part of the paper's number of iterations.
        compile: Whether the meta-step is compiled.
    """

    seeds: int
    device: str
    fraction: float = 1.0
    compile: bool = True

    def iterations(self, of_paper: int) -> int:
        """Return how many iterations to train for."""
        return max(round(of_paper * self.fraction), 1)


@dataclass(frozen=True)
class Experiment:
    """One training of all seeds, and the cells that it fills.

    Attributes:
        row: The row's name.
        paper: The paper's cells by column, as it prints them; "" where it has none.
        run: Trains and returns every column's values, one a seed.
    """

    row: str
    paper: dict[str, str]
    run: Callable[[Settings], dict[str, list[float]]]


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        title: What it is.
        experiments: Its rows, or parts of rows.
        lower_is_better: Whether the numbers are errors.
    """

    title: str
    experiments: list[Experiment] = field(default_factory=list)
    lower_is_better: bool = True


def train(
    build: Callable[[int], outer.MetaLearner],
    tasks: Any,
    settings: Settings,
    *,
    num_iterations: int,
    meta_batch_size: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 1e-3,
    max_grad_norm: float | None = None,
    validate: data.TaskDistribution | None = None,
    validate_every: int = 2500,
) -> tuple[outer.Replicas, History]:
    """Train one learner a seed, side by side; return them at their best validations, or at the end, and the history."""
    learners = []
    for seed in range(settings.seeds):
        torch.manual_seed(seed)
        learners.append(build(seed))
    replicas = outer.Replicas(learners).to(settings.device)
    torch.manual_seed(1000)
    history = fit(
        replicas,
        tasks,
        optimizer(replicas.parameters(), lr=lr),
        settings.iterations(num_iterations),
        meta_batch_size=meta_batch_size,
        max_grad_norm=max_grad_norm,
        validate=validate,
        validate_every=validate_every,
        num_validation_tasks=1000,
        progress=False,
    )
    if history.best_state is not None:
        replicas.load_state_dict(history.best_state)
    return replicas, history


def score(
    replicas: outer.Replicas,
    tasks: data.TaskDistribution,
    *,
    num_tasks: int,
    num_steps: int | None = None,
    metrics: dict[str, Any] | None = None,
) -> list[float]:
    """Return every replica's mean over the same test tasks: of the query loss, or of the one metric."""
    name = next(iter(metrics)) if metrics else "loss"
    values = []
    for index in range(len(replicas)):
        generator = torch.Generator().manual_seed(2000)
        evaluation = evaluate(
            replicas[index],
            tasks,
            num_tasks=num_tasks,
            num_steps=num_steps,
            metrics=metrics or {},
            generator=generator,
        )
        values.append(evaluation[name].mean)
    return values


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean over seeds and half of its 95 % confidence interval, no run left out."""
    tensor = torch.tensor(values, dtype=torch.float64)
    half = 1.96 * tensor.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return tensor.mean().item(), half


def mark(values: list[float], paper: str, lower_is_better: bool) -> str:
    """Return "within" if the difference to the paper is inside its own 95 % interval, or else "better" or "worse"."""
    if not paper:
        return ""
    theirs, _, half = (part.strip(" %") for part in paper.partition("+-"))
    ours, our_half = interval(values)
    rounding = 0.5 * 10 ** -len(theirs.partition(".")[2])  # of the last digit that the paper prints
    tolerance = math.hypot(float(half or 0), 0 if math.isnan(our_half) else our_half) + rounding
    difference = ours - float(theirs)
    if abs(difference) <= tolerance:
        return "within"
    return "better" if (difference < 0) == lower_is_better else "worse"
