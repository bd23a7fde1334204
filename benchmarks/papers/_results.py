"""Results of experiments, in one file each, and the tables that they fill."""

import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._records import keep, kept
from benchmarks.papers._experiment import Cells, Experiment, Settings, Table, cell
from metalearn import Summary


def path_of(folder: Path, experiment: Experiment) -> Path:
    """Return where an experiment's result is written."""
    name = re.sub(r"\W+", "_", f"{experiment.row} {' '.join(experiment.paper)}")
    return folder / f"{name}.json"


def written(path: Path, settings: Settings) -> Cells | None:
    """Return every column's cell, if the experiment has been run with these settings."""
    record = kept(path, settings.known())
    return record and {column: read(entries) for column, entries in record["cells"].items()}


def read(entries: Any) -> Any:
    """Return a cell that `entries_of` has made entries of."""
    if not isinstance(entries, dict):
        return entries
    values = torch.tensor(entries["values"], dtype=torch.float64)
    return Summary(values, entries["over"], read(entries["tasks"]), entries["num_outliers"])


def entries_of(cell: Any) -> Any:
    """Return all of a cell as JSON can hold it."""
    if not isinstance(cell, Summary):
        return cell
    parts = {"values": cell.values.tolist(), "over": cell.over, "num_outliers": cell.num_outliers}
    return {**parts, "tasks": entries_of(cell.tasks)}


def run(path: Path, experiment: Experiment, settings: Settings) -> Cells:
    """Run an experiment, from its checkpoint if there is one, and write every column's cell."""
    checkpoints = path.with_suffix("")
    start = time.perf_counter()
    cells = experiment.run(replace(settings, checkpoints=checkpoints, pictures=path.parent))
    seconds = round(time.perf_counter() - start)
    entries = {column: entries_of(cell) for column, cell in cells.items()}
    keep(path, settings.known(), {"seconds": seconds, "cells": entries})
    shutil.rmtree(checkpoints, ignore_errors=True)
    print(f"{experiment.row}: {seconds} s, {cells}", flush=True)
    return cells


def rows(table: Table, found: list[tuple[Experiment, Cells]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table, ours beside the paper's."""
    by_row: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for experiment, cells in found:
        for column, ours in cells.items():
            if isinstance(ours, Summary):
                ours = cell(ours, experiment.paper.get(column, ""), table.lower_is_better)
            by_row.setdefault(experiment.row, {})[column] = ours
            columns += [column] * (column not in columns)
    lines = [[row, *(cells.get(column, "") for column in columns)] for row, cells in by_row.items()]
    return ["", *columns], lines
