"""Sine regression by all methods: Huisman (2021), Table 6, as `_sines` says.

The best of the validations is tested on 2,000 tasks. Finetuning pretrains a whole network on
mini-batches of 16 points of all tasks; at test it, and a network from scratch, train for 100 steps
on mini-batches of 4.
"""

from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

from benchmarks.papers._experiment import TEST_SEED, Experiment, Settings, Table, score, train
from benchmarks.tables._sines import TASKS, Variant, tested
from metalearn import Summary, baselines, data, models, outer

SHOTS = (5, 10, 15, 20)
BASELINES = {
    "TrainFromScratch": ["7.38 +- 0.12", "4.61 +- 0.03", "4.24 +- 0.01", "3.85 +- 0.01"],
    "Finetuning": ["3.16 +- 0.01", "2.96 +- 0.01", "3.00 +- 0.01", "2.89 +- 0.01"],
}
PAPER = {
    ("LSTM", 1): ["0.98 +- 0.14", "0.76 +- 0.05", "0.94 +- 0.14", "1.06 +- 0.12"],
    ("MAML", 1): ["0.68 +- 0.01", "0.39 +- 0.01", "0.31 +- 0.01", "0.24 +- 0.00"],
    ("TURTLE", 1): ["0.47 +- 0.01", "0.26 +- 0.00", "0.20 +- 0.00", "0.15 +- 0.00"],
    ("LSTM", 5): ["0.37 +- 0.03", "0.21 +- 0.03", "0.21 +- 0.04", "0.18 +- 0.04"],
    ("MAML", 5): ["0.39 +- 0.01", "0.10 +- 0.00", "0.05 +- 0.00", "0.03 +- 0.00"],
    ("TURTLE", 5): ["0.08 +- 0.01", "0.02 +- 0.00", "0.02 +- 0.00", "0.01 +- 0.00"],
    ("LSTM", 10): ["0.30 +- 0.02", "0.22 +- 0.03", "0.25 +- 0.07", "0.40 +- 0.22"],
    ("MAML", 10): ["0.30 +- 0.04", "0.07 +- 0.00", "0.03 +- 0.00", "0.02 +- 0.00"],
    ("TURTLE", 10): ["0.10 +- 0.02", "0.08 +- 0.02", "0.07 +- 0.02", "0.34 +- 0.24"],
}


def best(method: str, num_steps: int, k_shot: int) -> Variant:
    """Return a method as the thesis ends up with it."""
    if method != "TURTLE":
        return Variant(method, num_steps, k_shot)
    inputs, beta, meta_batch_size = {
        1: (("grad",), 0.0, 1),
        5: (("grad", "grad_history", "step"), 0.9, 2),
        10: (("grad", "grad_history"), 0.3, 4),
    }[num_steps]
    options = {"meta_batch_size": meta_batch_size, "inputs": inputs, "beta": beta}
    return Variant(method, num_steps, k_shot, **options, rates=True)


def baseline(settings: Settings, method: str, k_shot: int) -> dict[str, Summary]:
    """Return a baseline's errors on the test tasks."""
    tasks = data.Sinusoid(k_shot, num_query=50)

    def network(seed: int) -> outer.MetaLearner:
        torch.manual_seed(seed)
        model = models.mlp(1, [40, 40], 1)
        scratch = method == "TrainFromScratch"
        of = baselines.TrainFromScratch if scratch else baselines.Pretraining
        return of(model, F.mse_loss)

    judged = [network(seed) for seed in range(settings.seeds)]
    if method == "Finetuning":
        batches = data.MiniBatches(tasks, 16)
        trained, _ = train(network, batches, settings, num_iterations=TASKS, meta_batch_size=1)
        judged = [_fine_tuned(trained[index].model) for index in range(settings.seeds)]
    seeds = [TEST_SEED] * settings.seeds
    return {f"{k_shot}-shot": score(judged, tasks, num_tasks=2000, task_seeds=seeds)}


def _fine_tuned(model: nn.Module) -> outer.MetaLearner:
    """Return a learner that trains a new last layer on a pretrained network's features."""
    body = nn.Sequential(*list(model.children())[:-1])
    return baselines.Finetuning(body, nn.Linear(40, 1), F.mse_loss)


TABLE = Table(
    "MSE; in brackets the paper's (30 runs without outliers)",
    [
        Experiment(
            method,
            {f"{k_shot}-shot": cell},
            partial(baseline, method=method, k_shot=k_shot),
        )
        for method, cells in BASELINES.items()
        for k_shot, cell in zip(SHOTS, cells, strict=True)
    ]
    + [
        Experiment(
            f"{method} {num_steps} step{'s' * (num_steps > 1)}",
            {f"{k_shot}-shot": cell},
            partial(tested, variant=best(method, num_steps, k_shot), column=f"{k_shot}-shot"),
        )
        for (method, num_steps), cells in PAPER.items()
        for k_shot, cell in zip(SHOTS, cells, strict=True)
    ],
)
