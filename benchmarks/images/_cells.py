"""What a method fills the cells of a table with: accuracies, on the way too, and distances."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torchvision.utils import save_image

from benchmarks.images._methods import Method
from benchmarks.images._problems import Problem
from benchmarks.images._run import TEST_SEED, Run
from benchmarks.papers._curve import curve
from benchmarks.papers._experiment import Cells, Experiment, Settings, Table
from metalearn import (
    Evaluation,
    Summary,
    analysis,
    over_seeds,
)
from metalearn.types import Episode


def percent(summary: Summary) -> Summary:
    """Return accuracies in percent."""
    tasks = summary.tasks and percent(summary.tasks)
    return Summary(100 * summary.values, summary.over, tasks, summary.num_outliers)


def run(settings: Settings, problem: Problem, method: Method) -> Cells:
    """Train and judge one seed after the other; return accuracies, time and iterations."""
    images = problem.read(settings.device)
    splits = [*(split for split in images if split not in ("train", "val")), "val"]
    scores: dict[str, list[Evaluation]] = {split: [] for split in splits}
    found: dict[str, Any] = {}
    for seed in range(settings.seeds):
        one = Run(problem, method, images, settings, seed)
        device, autocast = torch.device(settings.device).type, settings.autocast
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            learner, found = one.trained()
            for split, of_split in scores.items():
                of_split.append(one.score(learner, split, settings.tasks))
    summaries = {
        split: (over_seeds(each) if len(each) > 1 else each[0])["accuracy"]
        for split, each in scores.items()
    }
    cells: Cells = {split: percent(summary) for split, summary in summaries.items()}
    statistics = scores["val"][0].batch_statistics
    words = {"iterations": f"{found['iterations']:,}", "time": f"{found['seconds']} s"}
    return {**cells, **words, "batch statistics": statistics}


def run_curve(settings: Settings, problem: Problem, method: Method, split: str) -> Cells:
    """Train one learner, and return its accuracies on a split's tasks on the way."""
    images = problem.read(settings.device)
    one, found = Run(problem, method, images, settings), []

    def train_to(at: int) -> None:
        found[:] = [one.trained_to(at)]

    def score() -> Summary:
        return percent(one.score(found[0], split, settings.tasks)["accuracy"])

    return curve(settings, one.iterations, train_to, score)


def run_pairs(settings: Settings, problem: Problem) -> Cells:
    """Train a representation, and return the extreme distances between two data sets' images."""
    images = problem.read(settings.device)
    learner, _ = Run(problem, problem.methods["hyper-representation"], images, settings).trained()
    generator = torch.Generator().manual_seed(TEST_SEED)
    sets = [
        problem.sampler(images[split]).sample(1, generator=generator).query
        for split in ("train", "test")
    ]
    distances = analysis.feature_distances(learner.model.get_submodule("features"), Episode(*sets))
    values, cells = distances.values[0], {}
    for name, pair in (("closest", distances.closest[0]), ("farthest", distances.farthest[0])):
        of_train, of_test = pair.tolist()
        cells[name] = Summary(values[of_train, of_test][None].cpu())
        if settings.pictures:
            path = settings.pictures / f"franceschi_figure_2_{name}.png"
            both = [each.x[0, index] for each, index in zip(sets, pair.tolist(), strict=True)]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(torch.stack(both), path)
    return {**cells, "mean": Summary(values.mean()[None].cpu())}


def table(
    title: str,
    problems: dict[str, Problem],
    paper: Callable[[str, str], str],
    rows: Callable[[Problem], dict[str, Method]] = lambda problem: problem.methods,
) -> Table:
    """Return a table of methods on problems.

    Args:
        title: What it is.
        problems: The problems, by what rows say of them; "" says nothing.
        paper: The paper's cell of a problem and a method.
        rows: The methods of a problem.
    """
    experiments = [
        Experiment(
            ", ".join(filter(None, (name, of_problem))),
            {"test": paper(of_problem, name)},
            partial(run, problem=problem, method=method),
            problem.archives,
        )
        for of_problem, problem in problems.items()
        for name, method in rows(problem).items()
    ]
    return Table(title, experiments, lower_is_better=False, images=True)
