"""The parts of a table, the training of its learners, and the comparison with the paper's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metalearn import History, Summary, data, evaluate, fit, outer, over_seeds

VALIDATION_SEED, TEST_SEED = 0, 2000
"""Of the tasks that `fit` validates on, and of the first seed's test tasks."""


@dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        seeds: Number of replicas, trained side by side.
        device: Where.
        fraction: Part of the paper's number of iterations.
        compile: Whether meta-step and optimizer's step are compiled.
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
        run: Trains and returns every column's summary over seeds.
        archives: Those that it reads.
    """

    row: str
    paper: dict[str, str]
    run: Callable[[Settings], dict[str, Summary]]
    archives: tuple[str, ...] = ()


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
    """Train one learner per seed together; return them at their best or last, and the history."""
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
        compile_step=settings.compile,
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
    task_seeds: Sequence[int] | None = None,
) -> Summary:
    """Return the replicas' query loss or single metric, each a mean over its seed's test tasks.

    `task_seeds` are the seeds of the tasks. If all are equal, the replicas are evaluated on the
    same tasks, and the summary includes the error over these tasks.
    """
    name = next(iter(metrics)) if metrics else "loss"
    seeds = range(TEST_SEED, TEST_SEED + len(replicas)) if task_seeds is None else task_seeds
    evaluations = [
        evaluate(
            replicas[index],
            tasks,
            num_tasks=num_tasks,
            num_steps=num_steps,
            metrics=metrics or {},
            generator=torch.Generator().manual_seed(seed),
        )
        for index, seed in enumerate(seeds)
    ]
    return over_seeds(evaluations)[name]


def interval(seeds: int) -> str:
    """Return what the intervals of a table are."""
    star = "a star marks one above a quarter of its mean, or by which alone the cell is within"
    return f"95 % over {seeds} seeds by Student's t, the error of the test tasks included; {star}"


def cell(ours: Summary, paper: str, lower_is_better: bool) -> str:
    """Return ours as a table prints it, beside the paper's cell and how it compares."""
    verdict, needs_ours = compared(ours, paper, lower_is_better)
    star = "*" * (needs_ours or ours.ci95 > abs(ours.mean) / 4)
    beside = f" ({', '.join(filter(None, [paper, verdict]))})" if paper else ""
    return f"{ours.mean:.3g} +- {ours.ci95:.2g}{star}{beside}"


def compared(ours: Summary, paper: str, lower_is_better: bool) -> tuple[str, bool]:
    """Return "within", "better" or "worse", and whether it is within by our own interval alone.

    A difference is within where its 95 % interval and the rounding of the paper's digits may
    explain it. Of a single run nothing can be said. Where our runs share their tasks, the paper's
    do, and its interval leaves out what these may be off by: as much as ours.
    """
    if not paper or math.isnan(ours.ci95):
        return "", False
    theirs, _, printed = (part.strip(" %") for part in paper.partition("+-"))
    half = math.hypot(float(printed or 0), 0 if ours.tasks is None else ours.tasks.ci95)
    rounding = 0.5 * 10 ** -len(theirs.partition(".")[2])  # of the last digit that the paper prints
    difference = ours.mean - float(theirs)
    if abs(difference) <= math.hypot(half, ours.ci95) + rounding:
        return "within", abs(difference) > half + rounding
    return ("better" if (difference < 0) == lower_is_better else "worse"), False
