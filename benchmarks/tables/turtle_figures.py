"""TURTLE's order, depth, history and batches: Huisman (2021), Figures 9 to 19, Table 11.

Figure 9 is a formula. Of the others: errors of the best validations on 5-shot sines, as `_sines`
says. They print no numbers, and of some axes the text does not say all values: betas are 0.3, 0.6
and 0.9 here, meta-batches 1, 2, 4 and 8, hidden layers 0 to 6.
"""

from dataclasses import replace
from functools import partial

import torch

from benchmarks.papers._experiment import Cells, Experiment, Settings, Table
from benchmarks.tables._sines import Variant, validation
from benchmarks.tables.sine_turtle import best
from metalearn import Summary

STEPS = (1, 5, 10)
TITLE = "MSE of the best validation, 5-shot; in brackets the paper's (30 runs)"


def decay() -> Table:
    """Figure 9: what part of a running mean comes from k steps back, (1 - beta) beta^k."""

    def run(settings: Settings, beta: float) -> Cells:
        weights = {f"{k}": (1 - beta) * beta**k for k in range(11)}
        return {k: Summary(torch.tensor([weight])) for k, weight in weights.items()}

    experiments = [
        Experiment(f"beta {beta}", {"": ""}, partial(run, beta=beta)) for beta in (0.3, 0.6, 0.9)
    ]
    return Table("Weight in the running mean", experiments, x="steps back", judged=False)


def _after(num_steps: int) -> str:
    return f"{num_steps} step{'s' * (num_steps > 1)}"


def order_and_depth() -> Table:
    """Figure 11: first- and second-order MAML and TURTLE, of 0 to 6 hidden layers."""
    rows = {"MAML": Variant("MAML")}
    rows |= {f"TURTLE, {hidden} hidden": Variant(hidden=(20,) * hidden) for hidden in range(7)}
    cells = [
        validation(
            f"{'fo' if order == 1 else 'so'}-{row}",
            _after(num_steps),
            replace(variant, num_steps=num_steps, order=order),
        )
        for num_steps in STEPS
        for row, variant in rows.items()
        for order in (1, 2)
    ]
    return Table(TITLE, cells)


def task_size() -> Table:
    """Figure 12: the number of support points, for three methods."""
    cells = [
        validation(
            f"{method}, {_after(num_steps)}", f"{k_shot}", Variant(method, num_steps, k_shot)
        )
        for method in ("MAML", "LSTM", "TURTLE")
        for num_steps in STEPS
        for k_shot in (5, 10, 15, 20)
    ]
    return Table("MSE of the best validation", cells, x="support points")


def history(num_steps: tuple[int, ...] = (5, 10), meta_batch_size: int = 1) -> Table:
    """Figures 13 and 18: running means of gradients or updates among TURTLE's inputs."""
    rows: dict[str, tuple[tuple[str, ...], float]] = {"none": (("grad",), 0.0)}
    for name, seen in (("gradients", "grad_history"), ("updates", "update_history")):
        rows |= {f"{name}, beta {beta}": (("grad", seen), beta) for beta in (0.3, 0.6, 0.9)}
    cells = [
        validation(
            row,
            _after(steps),
            Variant(num_steps=steps, inputs=inputs, beta=beta, meta_batch_size=meta_batch_size),
        )
        for steps in num_steps
        for row, (inputs, beta) in rows.items()
    ]
    return Table(TITLE, cells)


def meta_batches() -> Table:
    """Figure 14: the number of tasks in a meta-step."""
    cells = [
        validation(
            f"{method}, {_after(num_steps)}",
            f"{size}",
            Variant(method, num_steps, meta_batch_size=size),
        )
        for method in ("MAML", "TURTLE")
        for num_steps in STEPS
        for size in (1, 2, 4, 8)
    ]
    return Table("MSE of the best validation, 5-shot", cells, x="tasks in a meta-step")


def time_input() -> Table:
    """Figure 15: the step's number among TURTLE's inputs."""
    cells = [
        validation(row, _after(num_steps), Variant(num_steps=num_steps, inputs=inputs))
        for num_steps in (5, 10)
        for row, inputs in (("without time", ("grad",)), ("with time", ("grad", "step")))
    ]
    return Table(TITLE, cells)


def together() -> Table:
    """Figure 16: the final TURTLE with and without learned rates, beside LSTM and MAML."""
    cells = [
        validation(row, _after(num_steps), replace(best(method, num_steps, 5), rates=rates))
        for num_steps in STEPS
        for row, method, rates in (
            ("so-MAML", "MAML", False),
            ("LSTM", "LSTM", False),
            ("TURTLE", "TURTLE", False),
            ("TURTLE, learned rates", "TURTLE", True),
        )
    ]
    return Table(TITLE, cells)


def inputs() -> Table:
    """Figure 19: raw and processed gradients and losses, five hidden layers, one step."""
    seen = {
        "gradient": ("grad",),
        "gradient and loss": ("grad", "loss"),
        "processed gradient": ("processed_grad",),
        "processed gradient and loss": ("processed_grad", "processed_loss"),
    }
    cells = [validation(row, "1 step", Variant(inputs=given)) for row, given in seen.items()]
    return Table(TITLE, cells)


WIDTHS = {
    1: ["0.60 +- 0.01", "0.63 +- 0.02", "0.64 +- 0.02", "0.65 +- 0.02", "0.65 +- 0.03",
        "0.73 +- 0.13"],
    5: ["0.50 +- 0.23", "0.59 +- 0.27", "2.53 +- 0.55", "3.14 +- 0.45", "3.14 +- 0.43",
        "1.04 +- 0.47"],
    10: ["1.94 +- 0.19", "1.57 +- 0.53", "3.57 +- 0.42", "3.57 +- 0.43", "3.71 +- 0.32",
         "4.17 +- 0.34"],
}  # fmt: skip


def widths() -> Table:
    """Table 11: two hidden layers of 5 to 100 units, beside five of 20."""
    rows: dict[str, tuple[int, ...]] = {"base": (20,) * 5}
    rows |= {f"{width} nodes": (width, width) for width in (5, 40, 60, 80, 100)}
    cells = [
        validation(row, _after(num_steps), Variant(num_steps=num_steps, hidden=hidden), paper)
        for num_steps, of_paper in WIDTHS.items()
        for (row, hidden), paper in zip(rows.items(), of_paper, strict=True)
    ]
    return Table(TITLE, cells)
