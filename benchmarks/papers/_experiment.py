"""The parts of a table, the training of its learners, and the comparison with the paper's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from metalearn import History, Summary, data, evaluate, fit, outer, over_seeds

VALIDATION_SEED, TEST_SEED = 0, 2000
"""Of the tasks that `fit` validates on, and of the first seed's test tasks."""


@dataclass(frozen=True)
class Settings:
    """How a table is run.

    Attributes:
        seeds: Number of runs; where a table's learners are small, replicas trained side by side.
        device: Where.
        fraction: Part of the paper's number of iterations.
        compile: Whether meta-steps, of replicas with the optimizer's step, are compiled.
        minutes: Of images: train each method for so long in place of a number of iterations.
        statistics: Of images: source of batch normalisation's statistics.
        tasks: Of images: number of tasks of the last evaluation.
        meta_batch_size: Of images: tasks in a meta-step, if not as many as the problem has.
        filters: Of images: of every convolution, if not as many as the problem has.
        looks: Of images: validations while a method trains for `minutes`.
        autocast: Of images: whether to train and evaluate under autocast to bfloat16.
        cuda_graph: Of images: whether to train by replay of a CUDA graph.
        checkpoints: Folder of the training that runs, to go on from; None for none.
        pictures: Folder of what an experiment draws itself; None for none.
    """

    seeds: int
    device: str
    fraction: float = 1.0
    compile: bool = True
    minutes: float | None = None
    statistics: str = "transductive"
    tasks: int = 600
    meta_batch_size: int | None = None
    filters: int | None = None
    looks: int = 0
    autocast: bool = False
    cuda_graph: bool = False
    checkpoints: Path | None = None
    pictures: Path | None = None

    def iterations(self, of_paper: int) -> int:
        """Return how many iterations to train for."""
        return max(round(of_paper * self.fraction), 1)

    def known(self) -> dict[str, Any]:
        """Return what a result depends on, as JSON can hold it."""
        folders = ("checkpoints", "pictures")
        return {name: value for name, value in asdict(self).items() if name not in folders}


Cells = dict[str, Summary | str]
"""What an experiment has found by column: numbers, or words about them."""


@dataclass(frozen=True)
class Experiment:
    """One training of all seeds, and the cells that it fills.

    Attributes:
        row: The row's name.
        paper: The paper's cells by column, as it prints them; "" where it has none.
        run: Trains and returns every column's cell.
        archives: Those that it reads.
    """

    row: str
    paper: dict[str, str]
    run: Callable[[Settings], Cells]
    archives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table or a figure of a paper.

    Attributes:
        title: What it is.
        experiments: Its rows, or parts of rows.
        lower_is_better: Whether the numbers are errors.
        x: If the columns are numbers and the rows curves, what the numbers are.
        images: Whether it is of images: seeds are trained one after the other, by default one.
        judged: Whether its numbers are of test tasks.
    """

    title: str
    experiments: list[Experiment] = field(default_factory=list)
    lower_is_better: bool = True
    x: str = ""
    images: bool = False
    judged: bool = True


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
    num_validation_steps: int | None = None,
    callbacks: Sequence[Callable[[Any], Any]] = (),
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
        num_validation_steps=num_validation_steps,
        checkpoint_dir=settings.checkpoints,
        callbacks=callbacks,
        progress=False,
    )
    if history.best_state is not None:
        replicas.load_state_dict(history.best_state)
    return replicas, history


def score(
    replicas: outer.Replicas | Sequence[outer.MetaLearner],
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


def interval(settings: Settings, table: Table) -> str:
    """Return what the intervals of a table are."""
    star = "a star marks one above a quarter of its mean, or by which alone the cell is within"
    if settings.seeds == 1 and table.images:
        over = f"95 % over the {settings.tasks:,} test tasks of one run"
        return f"{over}; the papers' are as they print them; {star}"
    if settings.seeds == 1:
        return "none, of one run"
    tasks = ", the error of the test tasks included" * table.judged
    return f"95 % over {settings.seeds} seeds by Student's t{tasks}; {star}"


def cell(ours: Summary, paper: str, lower_is_better: bool) -> str:
    """Return ours as a table prints it, beside the paper's cell and how it compares."""
    verdict, needs_ours = compared(ours, paper, lower_is_better)
    star = "*" * (needs_ours or ours.ci95 > abs(ours.mean) / 4)
    beside = f" ({', '.join(filter(None, [paper, verdict]))})" if paper else ""
    half = "" if math.isnan(ours.ci95) else f" +- {ours.ci95:.2g}"  # of a single run
    return f"{ours.mean:.3g}{half}{star}{beside}"


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
