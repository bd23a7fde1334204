"""Which layers adapt: Arnold et al. (2019), Figure 2.

A Conv-4 is meta-trained by MAML on 10-way tasks, 5-shot with 4 inner steps on Omniglot, 3-shot with
2 on CIFAR-FS. At test time each layer, a convolution with its batch normalisation or the head, is
frozen or adapts alone; and with the first three layers frozen, noise is added to the head's initial
weights. 100 test tasks, as in the paper.
"""

from functools import partial
from typing import Any

import torch

from benchmarks.images._cells import percent
from benchmarks.images._problems import PROBLEMS, Problem
from benchmarks.images._run import METRICS, Run
from benchmarks.papers._experiment import Cells, Experiment, Settings, Table
from metalearn import analysis

LAYERS = {
    f"C{index + 1}": [f"features.{3 * index}", f"features.{3 * index + 1}"] for index in range(4)
}
LAYERS["FC"] = ["head"]
STDS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


def run(settings: Settings, problem: Problem, split: str) -> Cells:
    """Train one network, and judge it with parts of it frozen or perturbed."""
    images = problem.read(settings.device)
    one = Run(problem, problem.methods["CNN, 4 layers"], images, settings)
    learner, found = one.trained()
    tasks = problem.sampler(images[split])

    def same_tasks() -> dict[str, Any]:
        return {"num_tasks": 100, "metrics": METRICS, "generator": torch.Generator().manual_seed(2)}

    ablation = analysis.layer_ablation(learner, tasks, LAYERS, **same_tasks())
    frozen = [pattern for layer in ("C1", "C2", "C3") for pattern in LAYERS[layer]]
    noise = analysis.head_noise(learner, tasks, "head", STDS, frozen=frozen, **same_tasks())
    evaluations = {
        "all adapt": ablation.whole,
        **{f"{layer} frozen": each for layer, each in ablation.frozen.items()},
        **{f"{layer} alone": each for layer, each in ablation.alone.items()},
        **{f"noise of {std:g} on FC": each for std, each in noise.evaluations.items()},
    }
    cells = {name: percent(each["accuracy"]) for name, each in evaluations.items()}
    return {**cells, "iterations": f"{found['iterations']:,}"}


def table() -> Table:
    """Figure 2: accuracies where layers are frozen, adapt alone, or are perturbed."""
    rows = {"Omniglot": ("omniglot_10w5s", "test"), "CIFAR-FS": ("cifar_fs_10w3s", "val")}
    experiments = [
        Experiment(
            row,
            {"all adapt": ""},
            partial(run, problem=PROBLEMS[name], split=split),
            PROBLEMS[name].archives,
        )
        for row, (name, split) in rows.items()
    ]
    return Table("Accuracy in %", experiments, lower_is_better=False, images=True)
