"""A table as a picture: ours with its interval, beside the paper's."""

import math
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.papers._experiment import Cells, Experiment, Table
from metalearn import Summary

Found = list[tuple[Experiment, Cells]]


def printed(paper: str) -> tuple[float, float] | None:
    """Return the number of a paper's cell and half of its interval; None where it has none."""
    number, _, half = (part.strip(" %") for part in paper.partition("+-"))
    return (float(number), float(half or 0)) if number else None


def plot(table: Table, found: Found, path: Path) -> None:
    """Draw a table into a file: curves if its columns are numbers, or else points by column."""
    (curves if table.x else points)(table, found)
    plt.gcf().savefig(path, dpi=110, bbox_inches="tight")
    plt.close()


def curves(table: Table, found: Found) -> None:
    """Draw a line for every row."""
    axes = plt.subplots(figsize=(6, 4))[1]
    by_row: dict[str, dict[float, Summary]] = {}
    for experiment, cells in found:
        for column, cell in cells.items():
            if isinstance(cell, Summary):
                by_row.setdefault(experiment.row, {})[float(column.strip(" %"))] = cell
    for row, ours in by_row.items():
        halves = [0 if math.isnan(summary.ci95) else summary.ci95 for summary in ours.values()]
        means = [summary.mean for summary in ours.values()]
        axes.errorbar(list(ours), means, halves, marker="o", capsize=2, label=row)
    axes.set(xlabel=table.x)
    axes.legend(fontsize=7)


def points(table: Table, found: Found) -> None:
    """Draw one picture for every column, and in it a point for every row."""
    summaries = [
        (experiment, column, cell)
        for experiment, cells in found
        for column, cell in cells.items()
        if isinstance(cell, Summary)
    ]
    rows = list(dict.fromkeys(experiment.row for experiment, *_ in summaries))
    columns = list(dict.fromkeys(column for _, column, _ in summaries))
    size = (1.5 + 2.2 * len(columns), 0.8 + 0.25 * len(rows))
    pictures = plt.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False)[1][0]
    for experiment, column, ours in summaries:
        axes, at = pictures[columns.index(column)], rows.index(experiment.row)
        half = 0 if math.isnan(ours.ci95) else ours.ci95
        axes.errorbar(ours.mean, at, xerr=half, fmt="o", color="C0", capsize=2)
        if theirs := printed(experiment.paper.get(column, "")):
            axes.errorbar(theirs[0], at + 0.25, xerr=theirs[1], fmt="D", color="C1", capsize=2)
    for axes, column in zip(pictures, columns, strict=True):
        axes.set_title(column, fontsize=8)
        axes.tick_params(labelsize=7)
    pictures[0].set_yticks(range(len(rows)), rows)
    pictures[0].invert_yaxis()
    plt.gcf().suptitle("blue: ours; orange: the paper's", fontsize=8, y=1.02)
