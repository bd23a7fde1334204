"""Inputs and depth of TURTLE's network: Huisman (2021), Tables 4 and 5.

5-shot sine regression with one step, 20 units per hidden layer, no learned rates; the score is a
run's best validation, as in the thesis. The thesis' code takes the loss as a constant input; we
differentiate it. Otherwise as `_sines` says.
"""

from fnmatch import fnmatch

from benchmarks.papers._experiment import Table
from benchmarks.tables._sines import Variant, validation

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


CELLS = [
    validation(
        f"{inputs}, {hidden} hidden",
        activation if hidden else "linear",
        Variant(inputs=INPUTS[inputs], hidden=(20,) * hidden, activation=ACTIVATIONS[activation]),
        cell,
    )
    for inputs, by_depth in PAPER.items()
    for hidden, cells in by_depth.items()
    for activation, cell in zip(ACTIVATIONS, cells, strict=False)
]


def table(*rows: str) -> Table:
    """Return the rows like one of some patterns."""
    title = "Validation MSE by activation; in brackets the paper's (30 runs)"
    return Table(title, [cell for cell in CELLS if any(fnmatch(cell.row, row) for row in rows)])
