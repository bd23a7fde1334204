"""Sine regression with T-net and MT-net: Lee and Choi (2018), Table 1.

A sin(w x + b), 10 points of support and query in training, one inner step at 0.01, 60,000
iterations of 4 tasks with Adam at 1e-3. Their code reports every number of steps up to 10 and their
paper does not say which it prints: the first three columns have one step, as in training, the
others 10.
"""

import math
from functools import partial

from benchmarks.papers._experiment import Experiment, Settings, Table, score, train
from benchmarks.tables._t_net import build
from metalearn import Summary, data

SHOTS = (5, 10, 20)
PAPER = {
    "MAML": ["1.07 +- 0.11", "0.71 +- 0.07", "0.50 +- 0.05"],
    "Meta-SGD": ["0.88 +- 0.14", "0.53 +- 0.09", "0.35 +- 0.06"],
    "T-net": ["0.83 +- 0.08", "0.56 +- 0.06", "0.38 +- 0.04"],
    "MT-net": ["0.76 +- 0.09", "0.49 +- 0.05", "0.33 +- 0.04"],
}


def sines(k_shot: int) -> data.Sinusoid:
    """Return the paper's distribution: its + b is our - p."""
    return data.Sinusoid(k_shot, num_query=10, phase=(-math.pi, 0), frequency=(0.8, 1.2))


def run(
    settings: Settings, method: str, lr: float, shots: tuple[int, ...] = SHOTS
) -> dict[str, Summary]:
    """Train all seeds and return their test errors by number of examples and steps."""
    builder = partial(build, method=method, lr=lr, compile=settings.compile)
    replicas, _ = train(builder, sines(10), settings, num_iterations=60_000, meta_batch_size=4)
    values = {
        f"{k_shot}-shot": score(replicas, sines(k_shot), num_tasks=600, num_steps=1)
        for k_shot in shots
    }
    for k_shot in shots:
        values[f"{k_shot}-shot, 10 steps"] = score(
            replicas, sines(k_shot), num_tasks=600, num_steps=10
        )
    return values


TABLE = Table(
    "MSE; in brackets the paper's",
    [
        Experiment(
            method,
            {f"{k_shot}-shot": cell for k_shot, cell in zip(SHOTS, cells, strict=True)},
            partial(run, method=method, lr=0.01),
        )
        for method, cells in PAPER.items()
    ],
)
