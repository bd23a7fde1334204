"""Reproduce a paper's table: `python -m benchmarks.tables sine_turtle --seeds 5`.

Our numbers are printed beside the paper's. Each experiment is written to a file when it is done,
and not run again with the same settings.
"""

import argparse
import re
import time
from dataclasses import asdict
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import _records as records
from benchmarks._archives import archive
from benchmarks._records import RECORD, keep, kept
from benchmarks.tables._experiment import Experiment, Settings, Table, cell, interval
from metalearn import Summary, keep_large_blocks

NAMES = ["sine_turtle", "turtle_inputs", "sine_mtnet", "sine_rates", "polynomial", "linear"]


def path_of(folder: Path, experiment: Experiment) -> Path:
    """Return where an experiment's result is written."""
    name = re.sub(r"\W+", "_", f"{experiment.row} {' '.join(experiment.paper)}")
    return folder / f"{name}.json"


def written(path: Path, settings: Settings) -> dict[str, Summary] | None:
    """Return every column's summary, if the experiment has been run with these settings."""
    record = kept(path, asdict(settings))
    if record is None or "summaries" not in record:
        return None
    return {column: read(entries) for column, entries in record["summaries"].items()}


def read(entries: dict[str, Any]) -> Summary:
    """Return a summary that `entries_of` has made entries of."""
    tasks = entries["tasks"] and read(entries["tasks"])
    return Summary(torch.tensor(entries["values"], dtype=torch.float64), entries["over"], tasks)


def entries_of(summary: Summary) -> dict[str, Any]:
    """Return all of a summary as JSON can hold it."""
    tasks = summary.tasks and entries_of(summary.tasks)
    return {"values": summary.values.tolist(), "over": summary.over, "tasks": tasks}


def run(path: Path, experiment: Experiment, settings: Settings) -> dict[str, Summary]:
    """Run an experiment and write every column's summary."""
    start = time.perf_counter()
    summaries = experiment.run(settings)
    seconds = round(time.perf_counter() - start)
    entries = {column: entries_of(summary) for column, summary in summaries.items()}
    keep(path, asdict(settings), {"seconds": seconds, "summaries": entries})
    values = {column: summary.values.tolist() for column, summary in summaries.items()}
    print(f"{experiment.row}: {seconds} s, {values}", flush=True)
    return summaries


def show(
    table: Table,
    rows: list[tuple[Experiment, dict[str, Summary]]],
    settings: Settings,
    path: Path | None,
) -> None:
    """Print our numbers beside the paper's, and record them if there is a path."""
    cells: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for experiment, summaries in rows:
        for column, ours in summaries.items():
            text = cell(ours, experiment.paper.get(column, ""), table.lower_is_better)
            cells.setdefault(experiment.row, {})[column] = text
            columns += [column] * (column not in columns)
    lines = [
        [row, *(by_column.get(column, "") for column in columns)]
        for row, by_column in cells.items()
    ]
    print(f"\n{table.title}\n")
    records.show(
        ["", *columns], lines, {**asdict(settings), "interval": interval(settings.seeds)}, path
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", default="*", help="pattern of the rows to run, such as 'TURTLE*'")
    parser.add_argument("--columns", default="*", help="pattern of the columns, such as '5-shot'")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="part of the paper's iterations"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--record", type=Path, help=RECORD)
    parser.add_argument(
        "--show",
        action="store_true",
        help="run nothing; print what has been run with these settings",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(arguments.seeds, arguments.device, arguments.fraction, arguments.compile)
    table: Table = import_module(f"benchmarks.tables.{arguments.name}").TABLE
    chosen = [
        experiment
        for experiment in table.experiments
        if fnmatch(experiment.row, arguments.rows)
        and any(fnmatch(c, arguments.columns) for c in experiment.paper)
    ]
    if not chosen:
        cells = [
            f"{experiment.row} | {column}"
            for experiment in table.experiments
            for column in experiment.paper
        ]
        parser.error(f"no cell like {arguments.rows!r} | {arguments.columns!r}; there are {cells}")
    paths = [path_of(arguments.out / arguments.name, experiment) for experiment in chosen]
    known = [written(path, settings) for path in paths]
    if not arguments.show:
        for experiment, values in zip(chosen, known, strict=True):
            for name in experiment.archives if values is None else ():
                archive(name)  # before any row is computed
        for index, experiment in enumerate(chosen):
            if known[index] is None:
                known[index] = run(paths[index], experiment, settings)
    rows = [
        (experiment, values)
        for experiment, values in zip(chosen, known, strict=True)
        if values is not None
    ]
    show(table, rows, settings, arguments.record)


if __name__ == "__main__":
    keep_large_blocks()
    main()
