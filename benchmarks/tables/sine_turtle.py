"""Sine regression with MAML, the LSTM meta-learner and TURTLE: Huisman (2021), Table 6.

a sin(x - p), MLP 1-40-40-1, 50 query points, 70,000 training tasks seen once, Adam at 1e-3; the
best of the validations every 2,500 tasks on 1,000 tasks is tested on 2,000. Gradients are clipped
at 10 where there are several steps. The network has PyTorch's initialisation; the thesis' code sets
its biases to zero.
"""

from functools import partial

import torch.nn.functional as F

from benchmarks.tables._experiment import TEST_SEED, Experiment, Settings, Table, score, train
from metalearn import Summary, data, inner, models, outer

SHOTS = (5, 10, 15, 20)
TASKS = 70_000
META_BATCH = {("TURTLE", 5): 2, ("TURTLE", 10): 4}
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


def turtle(num_steps: int) -> inner.UpdateRule:
    """Return the paper's final TURTLE.

    Its rates start at 0.01; the thesis does not say, and its code draws them from U[0, 1).
    """
    inputs = {1: ("grad",), 5: ("grad", "grad_history", "step"), 10: ("grad", "grad_history")}[
        num_steps
    ]
    beta = {1: 0.0, 5: 0.9, 10: 0.3}[num_steps]
    return inner.LearnedRate(inner.Turtle(inputs, beta=beta, lr=0.01), per="parameter")


def build(seed: int, method: str, num_steps: int, settings: Settings) -> outer.MetaLearner:
    """Return a learner to train."""
    # The LSTM starts at the middle of the ranges that its authors draw its gates' biases from.
    lstm = inner.LSTM(lr=0.011, forget_bias=4.5)
    rules = {
        "MAML": lambda: inner.SGD(0.01),
        "LSTM": lambda: lstm,
        "TURTLE": lambda: turtle(num_steps),
    }
    rule, estimator = rules[method](), outer.Unrolled(order=1 if method == "LSTM" else 2)
    if num_steps > 1 and method != "LSTM":
        estimator = outer.ClipPerTask(estimator, value=10.0)
        rule = inner.Clipped(rule, value=10.0)
    return outer.MetaLearner(
        models.mlp(1, [40, 40], 1),
        F.mse_loss,
        rule,
        num_steps=num_steps,
        estimator=estimator,
        compile=settings.compile,
    )


def run(settings: Settings, method: str, num_steps: int, k_shot: int) -> dict[str, Summary]:
    """Train all seeds for one number of examples and return their test errors."""
    tasks = data.Sinusoid(k_shot, num_query=50)
    meta_batch_size = META_BATCH.get((method, num_steps), 1)
    replicas, _ = train(
        partial(build, method=method, num_steps=num_steps, settings=settings),
        tasks,
        settings,
        num_iterations=TASKS // meta_batch_size,
        meta_batch_size=meta_batch_size,
        max_grad_norm=0.25 if method == "LSTM" else None,
        validate=tasks,
        validate_every=2500 // meta_batch_size,
    )
    seeds = [TEST_SEED] * settings.seeds  # one set of tasks for all runs, as in the thesis
    return {f"{k_shot}-shot": score(replicas, tasks, num_tasks=2000, task_seeds=seeds)}


TABLE = Table(
    "MSE; in brackets the paper's (30 runs without outliers)",
    [
        Experiment(
            f"{method} {num_steps} step{'s' * (num_steps > 1)}",
            {f"{k_shot}-shot": cell},
            partial(run, method=method, num_steps=num_steps, k_shot=k_shot),
        )
        for (method, num_steps), cells in PAPER.items()
        for k_shot, cell in zip(SHOTS, cells, strict=True)
    ],
)
