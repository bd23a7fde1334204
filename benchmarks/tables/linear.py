"""Linear models and meta-optimizers: Arnold et al. (2019), Figure 1.

`--rows` chooses between synthetic data and Omniglot.

Synthetic: labels sign(w . x) with w and x from N(0, I_100), one inner step, SGD on one task an
iteration, 30,000 iterations, the paper's rates. It leaves open how many points a task adapts to and
on which it is judged. Three readings: 10 or 500 points judged on 500 others, and its 1,000 points a
task used for both, as its eq. 1 has one loss in both places.

KLin and KFC are those of its equations: the update of theta (3) has no rate, the adaptation of xi
(4) has the "adaptation learning rate", which is idle where there is but one step, and the outer
optimizer has the "meta learning rate". Further rows have the adaptation rate on theta too, and all
rates at 1.

Omniglot, 5-way 1-shot, two steps, Adam: with METALEARN_DATA set to a folder that has omniglot.npz,
whose split has 1,028 training characters (the paper has 1,200). Rotations are classes of their own
in training; tests are unrotated. Without these data `--columns '*points*'` runs the rest.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from benchmarks._archives import archive
from benchmarks.papers._curve import curve
from benchmarks.papers._experiment import Cells, Experiment, Settings, Table, score, train
from metalearn import data, functional, inner, models, outer

READINGS = {
    "10 points, 500 others": data.LinearClassification(10, 500),
    "500 points, 500 others": data.LinearClassification(500, 500),
    "the same 1,000 points": data.SupportAsQuery(data.LinearClassification(1000, 1)),
}
# hidden layers, rule, rate of the outer SGD, the paper's accuracy; KLin and KFC: "similar or
# better"
SYNTHETIC = {
    "LR": ([], inner.SGD(0.5), 0.01, "50"),
    "LR + LinNet": ([64, 64, 64], inner.SGD(1.9), 1.9, "92"),
    "LR + KLin": ([], inner.SelfAdapting(inner.KroneckerLinear(1.0), lr=3.33), 3.33, ""),
    "LR + KFC": ([], inner.SelfAdapting(inner.KroneckerNetwork(1.0), lr=3.9), 3.9, ""),
    "LR + KLin, rate on theta too": (
        [],
        inner.SelfAdapting(inner.KroneckerLinear(3.33), lr=3.33),
        3.33,
        "",
    ),
    "LR + KFC, rate on theta too": (
        [],
        inner.SelfAdapting(inner.KroneckerNetwork(3.9), lr=3.9),
        3.9,
        "",
    ),
    "LR + KLin, rates 1": ([], inner.SelfAdapting(inner.KroneckerLinear(1.0), lr=1.0), 1.0, ""),
    "LR + KFC, rates 1": ([], inner.SelfAdapting(inner.KroneckerNetwork(1.0), lr=1.0), 1.0, ""),
}
OMNIGLOT = {
    "LR": ([], inner.SGD(1.0), 5e-4, "45"),
    "LR + LinNet": ([256, 128, 64, 64], inner.SGD(0.08), 5e-4, "70"),
    "LR + KLin": ([], inner.SelfAdapting(inner.KroneckerLinear(1.0), lr=0.9), 3e-3, ""),
    "LR + KFC": (
        [],
        inner.SelfAdapting(inner.KroneckerNetwork(1.0, num_layers=4), lr=0.01),
        1e-3,
        "",
    ),
}


def one_step_optimum(num_points: int, dim: int = 100) -> float:
    """Return the accuracy on unseen points of w = sum_i y_i x_i, the best single step from zero."""
    along = 2 * num_points / math.pi
    return 1 - math.acos(math.sqrt(along / (along + dim - 1))) / math.pi


def sign_accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the percentage of logits on the side of their labels."""
    return 100 * ((output > 0) == (target > 0.5)).float().mean()


def percentage(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the accuracy in percent."""
    return 100 * functional.accuracy(output, target)


@dataclass(frozen=True)
class Part:
    """One half of the figure.

    Attributes:
        methods: Its rows: hidden layers, rule, rate of the outer optimizer, the paper's accuracy.
        tasks: Returns the tasks to train and to test on.
        training: Arguments of `train`.
        testing: Arguments of `score`.
        build: Makes a learner of hidden layers and a rule.
    """

    methods: dict[str, Any]
    tasks: Callable[[], tuple[data.TaskDistribution, data.TaskDistribution]]
    training: dict[str, Any]
    testing: dict[str, Any]
    build: Callable[..., outer.MetaLearner]


def _of_points(hidden: list[int], rule: inner.UpdateRule, **options: Any) -> outer.MetaLearner:
    model = models.linear_network(100, hidden, 1)
    return outer.MAML(model, F.binary_cross_entropy_with_logits, rule, num_steps=1, **options)


def _of_images(hidden: list[int], rule: inner.UpdateRule, **options: Any) -> outer.MetaLearner:
    model = nn.Sequential(nn.Flatten(), *models.linear_network(784, hidden, 5))
    return outer.MAML(model, F.cross_entropy, rule, num_steps=2, **options)


def _characters() -> tuple[data.TaskDistribution, data.TaskDistribution]:
    path = archive("omniglot.npz")
    train, test = (data.ClassImages.from_npz(path, split=split) for split in ("train", "test"))
    return tuple(  # type: ignore[return-value]
        data.EpisodeSampler(classes, n_way=5, k_shot=1, num_query=1)
        for classes in (train.rotated(), test)
    )


PARTS = {
    reading: Part(
        SYNTHETIC,
        partial(lambda tasks: (tasks, tasks), tasks),
        {"num_iterations": 30_000, "meta_batch_size": 1, "optimizer": torch.optim.SGD},
        {"num_tasks": 500, "metrics": {"accuracy": sign_accuracy}},
        _of_points,
    )
    for reading, tasks in READINGS.items()
}
PARTS["Omniglot"] = Part(
    OMNIGLOT,
    _characters,
    {"num_iterations": 60_000, "meta_batch_size": 32},
    {"num_tasks": 600, "metrics": {"accuracy": percentage}},
    _of_images,
)


def run(settings: Settings, part: str, method: str) -> Cells:
    """Train all seeds and return their accuracies at the end."""
    of_part = PARTS[part]
    hidden, rule, lr, _ = of_part.methods[method]
    tasks, test = of_part.tasks()
    build = partial(_built, of_part.build, hidden, rule, settings.compile)
    replicas, _ = train(build, tasks, settings, lr=lr, **of_part.training)
    return {part: score(replicas, test, **of_part.testing)}


def run_curve(settings: Settings, part: str, method: str) -> Cells:
    """Train all seeds and return their accuracies on the way."""
    of_part = PARTS[part]
    hidden, rule, lr, _ = of_part.methods[method]
    tasks, test = of_part.tasks()
    build = partial(_built, of_part.build, hidden, rule, settings.compile)
    options = {**of_part.training, "lr": lr}
    total = settings.iterations(options.pop("num_iterations"))
    found: list[outer.Replicas] = []

    def train_to(at: int) -> None:
        exactly = replace(settings, fraction=1.0)
        found[:] = [train(build, tasks, exactly, num_iterations=at, **options)[0]]

    return curve(settings, total, train_to, lambda: score(found[0], test, **of_part.testing))


def _built(
    build: Callable[..., outer.MetaLearner],
    hidden: list[int],
    rule: inner.UpdateRule,
    compile: bool,
    seed: int,
) -> outer.MetaLearner:
    return build(hidden, rule, compile=compile)


def curves() -> Table:
    """Figure A.1: accuracies on test tasks while linear models train."""
    experiments = [
        Experiment(
            f"{method}, {part}", {"": ""}, partial(run_curve, part=part, method=method), needs
        )
        for part, needs in (("10 points, 500 others", ()), ("Omniglot", ("omniglot.npz",)))
        for method in PARTS[part].methods
    ]
    return Table("Accuracy in %", experiments, lower_is_better=False, x="% of the iterations")


TABLE = Table(
    "Accuracy after adaptation in %, mean +- 95 % interval over seeds; in brackets the paper's. "
    "Best one-step accuracy on unseen points: "
    + ", ".join(f"{100 * one_step_optimum(n):.1f} from {n}" for n in (10, 500, 1000)),
    [
        Experiment(
            method,
            {part: cells[-1]},
            partial(run, part=part, method=method),
            ("omniglot.npz",) * (part == "Omniglot"),
        )
        for part, of_part in PARTS.items()
        for method, cells in of_part.methods.items()
    ],
    lower_is_better=False,
)
