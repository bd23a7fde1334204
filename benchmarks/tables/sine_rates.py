"""Robustness to the inner rate: Lee and Choi (2018), Table 2; 10-shot, else as `sine_mtnet`."""

from functools import partial

from benchmarks.papers._experiment import Experiment, Settings, Table
from benchmarks.tables.sine_mtnet import run
from metalearn import Summary

RATES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
PAPER = {
    "MAML": [
        "171.92 +- 25.04",
        "5.81 +- 0.49",
        "1.05 +- 0.11",
        "0.71 +- 0.07",
        "0.82 +- 0.08",
        "2.54 +- 0.19",
    ],
    "MT-net": [
        "4.18 +- 0.30",
        "0.61 +- 0.07",
        "0.54 +- 0.05",
        "0.49 +- 0.05",
        "0.59 +- 0.06",
        "0.72 +- 0.07",
    ],
}


def at_rate(settings: Settings, method: str, lr: float) -> dict[str, Summary]:
    """Train all seeds at one rate and return their 10-shot errors."""
    values = run(settings, method, lr, shots=(10,))
    return {f"{lr:g}": values["10-shot"], f"{lr:g}, 10 steps": values["10-shot, 10 steps"]}


TABLE = Table(
    "10-shot MSE by inner rate; in brackets the paper's",
    [
        Experiment(method, {f"{lr:g}": cell}, partial(at_rate, method=method, lr=lr))
        for method, cells in PAPER.items()
        for lr, cell in zip(RATES, cells, strict=True)
    ],
)
