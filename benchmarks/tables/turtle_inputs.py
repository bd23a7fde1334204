"""Inputs and depth of TURTLE's network: Huisman (2021), Tables 4 and 5.

5-shot sine regression with one step, 20 units per hidden layer, no learned rates and no gradient
clipping; the score is a run's best validation, as in the thesis. The thesis' code takes the loss as
a constant input; we differentiate it. Otherwise as in `sine_turtle`.
"""

from functools import partial

import torch.nn.functional as F

from benchmarks.tables._experiment import VALIDATION_SEED, Experiment, Settings, Table, score, train
from metalearn import Summary, data, inner, models, outer

INPUTS = {
    "raw gradient": ("grad",),
    "raw gradient and loss": ("grad", "loss"),
    "processed gradient and loss": ("processed_grad", "processed_loss"),
    "processed gradient": ("processed_grad",),
}
ACTIVATIONS = {"ReLU": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}
PAPER = {
    "raw gradient": {
        0: ["1.04 +- 0.32"],
        1: ["0.67 +- 0.02", "0.83 +- 0.22", "0.71 +- 0.03"],
        2: ["0.63 +- 0.02", "0.69 +- 0.05", "0.65 +- 0.01"],
    },
    "raw gradient and loss": {
        0: [""],  # the thesis: above 100
        1: ["2.90 +- 0.57", "1.43 +- 0.46", "0.93 +- 0.25"],
        2: ["1.48 +- 0.47", "1.12 +- 0.37", "1.37 +- 0.47"],
    },
    "processed gradient and loss": {
        0: ["2.95 +- 0.27"],
        1: ["1.80 +- 0.31", "2.75 +- 0.32", "2.95 +- 0.41"],
        2: ["1.14 +- 0.20", "2.01 +- 0.41", "2.33 +- 0.45"],
    },
    "processed gradient": {0: ["2.89 +- 0.08"], 1: ["1.39 +- 0.28"], 2: ["0.90 +- 0.00"]},
}


def build(seed: int, inputs: str, hidden: int, activation: str, compile: bool) -> outer.MetaLearner:
    """Return a learner to train."""
    rule = inner.Turtle(INPUTS[inputs], hidden=(20,) * hidden, activation=ACTIVATIONS[activation])
    return outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, rule, num_steps=1, compile=compile)


def run(settings: Settings, inputs: str, hidden: int, activation: str) -> dict[str, Summary]:
    """Train all seeds and return their errors on the validation tasks."""
    tasks = data.Sinusoid(5, num_query=50)
    builder = partial(
        build, inputs=inputs, hidden=hidden, activation=activation, compile=settings.compile
    )
    replicas, _ = train(
        builder, tasks, settings, num_iterations=70_000, meta_batch_size=1, validate=tasks
    )
    # at the best validation of every run, its tasks once more
    seeds = [VALIDATION_SEED] * settings.seeds
    return {
        activation if hidden else "linear": score(replicas, tasks, num_tasks=1000, task_seeds=seeds)
    }


TABLE = Table(
    "Validation MSE by activation; in brackets the paper's (30 runs)",
    [
        Experiment(
            f"{inputs}, {hidden} hidden",
            {activation if hidden else "linear": cell},
            partial(run, inputs=inputs, hidden=hidden, activation=activation),
        )
        for inputs, by_depth in PAPER.items()
        for hidden, cells in by_depth.items()
        for activation, cell in zip(ACTIVATIONS, cells, strict=False)
    ],
)
