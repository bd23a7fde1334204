"""The papers' tables of images, and our own comparisons of all methods."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn as nn
import torch.nn.functional as F

from benchmarks.images import _thesis
from benchmarks.images._cells import run, run_curve, run_pairs, table
from benchmarks.images._methods import Judge, Method, of
from benchmarks.images._problems import PROBLEMS, Problem
from benchmarks.images._run import STAYING
from benchmarks.papers._experiment import Experiment, Table
from metalearn import data, inner, outer

PERCENT = "Accuracy in %; in brackets the paper's"


def own(name: str) -> Table:
    """All methods on one problem, beside the number that the paper of each prints."""
    problem, printed = PROBLEMS[name], name.removesuffix("_shuffled")

    def paper(_: str, row: str) -> str:
        return problem.methods[row].paper.get(printed, "")

    return table(PERCENT, {"": problem}, paper)


def rows_of(papers: dict[str, dict[str, str]], problems: dict[str, str], num_filters: int) -> Table:
    """Some methods on some problems.

    Args:
        papers: The paper's cells, by what rows say of a problem and by method.
        problems: The problems' names, by what rows say of them.
        num_filters: Of every convolution, in the paper.
    """

    def rows(problem: Problem) -> dict[str, Method]:
        name = next(name for name, each in chosen.items() if each is problem)
        return {row: problem.methods[row] for row in papers[name]}

    chosen = {}
    for name, of_problem in problems.items():
        problem = PROBLEMS[of_problem]
        model = {**problem.model, "num_filters": num_filters}
        chosen[name] = replace(problem, model=model)
    return table(PERCENT, chosen, lambda name, row: papers[name][row], rows)


THESIS = {
    "miniImageNet": {
        1: ["29", "39", "45", "38", "48", "", "49"],
        5: ["41", "56", "58", "60", "63", "", "64"],
    },
    "CUB": {
        1: ["30", "33", "36 +- 1", "47 +- 1", "52", "", "53 +- 1"],
        5: ["46", "53", "53 +- 2", "64 +- 1", "73 +- 1", "", "71 +- 1"],
    },
    "miniImageNet to CUB": {
        1: ["31", "33", "35 +- 1", "27 +- 1", "39", "", "42 +- 1"],
        5: ["47", "52 +- 1", "52 +- 1", "57 +- 1", "58", "", "59 +- 1"],
    },
    "CUB to miniImageNet": {
        1: ["29", "29", "26", "29 +- 1", "32", "", "31"],
        5: ["40", "41", "31 +- 1", "37", "47", "", "44"],
    },
}
"""In percent, by data set and shots, in the order of `_thesis.methods`; of Table 7 the best of 5
runs, of the others means."""


def thesis(*names: str, rows: tuple[str, ...] = ()) -> Table:
    """Huisman (2021), Tables 7 to 10: its methods on its data sets, one shot and five."""
    problems = {
        f"{name}, {k_shot}-shot": _thesis.problem(name, k_shot)
        for name in names
        for k_shot in (1, 5)
    }
    cells = {
        (f"{name}, {k_shot}-shot", row): cell
        for name in names
        for k_shot, of_shot in THESIS[name].items()
        for row, cell in zip(_thesis.methods(k_shot), of_shot, strict=True)
    }

    def chosen(problem: Problem) -> dict[str, Method]:
        methods = problem.methods.items()
        return {row: method for row, method in methods if not rows or row in rows}

    found = table(PERCENT, problems, lambda name, row: cells[name, row], chosen)
    if not any(" to " in name for name in names):
        return found
    other = {"miniImageNet to CUB": "CUB", "CUB to miniImageNet": "miniImageNet"}
    experiments = [
        replace(each, paper={other[name]: each.paper["test"]})
        for each in found.experiments
        for name in names
        if f", {name}, " in each.row
    ]
    return replace(found, experiments=experiments)


CLASSIC = of(
    outer.HyperRepresentation,
    inner.SGD(0.1),
    num_steps=1,
    estimator=outer.Continued(outer.Joint(), horizon=4, staggered=False),
)
"""Joint steps of the representation and the heads."""


def _logistic(body: nn.Module, width: int, n_way: int) -> outer.MetaLearner:
    """Return a logistic regressor, from zero, on a representation that stays as it is."""
    model = nn.Sequential()
    model.add_module("features", body)
    model.add_module("head", nn.Linear(width, n_way).to(next(body.parameters()).device))
    rule = inner.SGD(0.1)
    return outer.HyperRepresentation(model, F.cross_entropy, rule, num_steps=20)


def _transferred(layer: str) -> Judge:
    """Return what judges a pretrained network's layer, "conv", "linear" or "softmax"."""

    def judged(learner: outer.MetaLearner, tasks: data.EpisodeSampler) -> outer.MetaLearner:
        n_way: Any = tasks.n_way
        body, head = learner.model.get_submodule("features"), learner.model.get_submodule("head")
        if layer == "conv":
            return _logistic(body, head.in_features, n_way)  # type: ignore[arg-type]
        parts = [body, head, *[nn.Softmax(-1)] * (layer == "softmax")]
        return _logistic(nn.Sequential(*parts), head.out_features, n_way)  # type: ignore[arg-type]

    return judged


def representations() -> Table:
    """Franceschi et al. (2017), Table 2: learned and transferred representations.

    "Multiclass" only: "NN" is a second network of the same kind, stopped by another criterion.
    """
    problem = PROBLEMS["mini_imagenet_5w1s"]
    pretrained = problem.methods["finetuning"]
    papers = {"conv": "36.57", "linear": "43.02", "softmax": "37.60"}
    rows = {
        f"Multiclass-{layer}": (replace(pretrained, judged=_transferred(layer)), paper)
        for layer, paper in papers.items()
    }
    for row, name, shots, paper in (
        ("Bilevel-train 1x5", "hyper-representation, training sets", None, "27.36"),
        ("Bilevel-train 16x5", "hyper-representation, training sets", 16, "29.63"),
        ("Approx-train 1x5", "hyper-representation, approximate", None, "24.74"),
        ("Approx-train 16x5", "hyper-representation, approximate", 16, "38.80"),
        ("Approx, split", "hyper-representation, approximate", None, "41.12"),
        ("Hyper-representation", "hyper-representation", None, "47.01 +- 1.35"),
    ):
        sees = "training sets" if "-train" in row else "episodes"
        rows[row] = (replace(problem.methods[name], shots=shots, sees=sees), paper)
    for shots, paper in ((1, "24.70"), (16, "40.46")):
        method = Method(CLASSIC, {}, STAYING, shots=shots, steps_at_test=5)
        rows[f"Classic-train {shots}x5"] = (method, paper)
    methods = {row: method for row, (method, _) in rows.items()}
    changed = replace(problem, methods=methods)
    return table(PERCENT, {"": changed}, lambda _, row: rows[row][1])


def inner_steps() -> Table:
    """Franceschi et al. (2017), Figure 1: the number of inner steps, one-shot, validation."""
    problem, rule = PROBLEMS["mini_imagenet_5w1s"], inner.LearnedRate(inner.SGD(0.1))
    experiments = [
        Experiment(
            f"T = {steps}",
            {"val": ""},
            partial(
                run,
                problem=problem,
                method=Method(of(outer.HyperRepresentation, rule, num_steps=steps), {}),
            ),
            problem.archives,
        )
        for steps in range(1, 9)
    ]
    return Table(PERCENT, experiments, lower_is_better=False, images=True)


def curves(name: str) -> Table:
    """Arnold et al. (2019), Figures A.2 and A.3: accuracies while networks train."""
    problem = PROBLEMS[name]
    experiments = [
        Experiment(
            f"{row}, {split}",
            {"": ""},
            partial(run_curve, problem=problem, method=method, split=split),
            problem.archives,
        )
        for row, method in problem.methods.items()
        for split in ("train", "test")
    ]
    return Table("Accuracy in %", experiments, False, "% of the iterations", images=True)


def pairs() -> Table:
    """Franceschi et al. (2017), Figure 2: the closest and farthest images of two data sets."""
    problem = PROBLEMS["mini_imagenet_5w1s"]
    experiment = Experiment(
        "hyper-representation",
        {"closest": ""},
        partial(run_pairs, problem=problem),
        problem.archives,
    )
    return Table("Distance of features, and the images in its picture", [experiment], images=True)
