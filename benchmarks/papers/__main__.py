"""Make a table or figure of a paper: `python -m benchmarks.papers NAME`.

`python -m benchmarks.papers list` prints all of the five documents, the command of each, and how
far it has been run. Our numbers stand beside the paper's. Every experiment is written to a file
when it is done, and not run again with the same settings; one that was interrupted goes on from its
last checkpoint. Images are read from the folder METALEARN_DATA.
"""

import argparse
from fnmatch import fnmatch
from pathlib import Path

import torch

from benchmarks import _records as records
from benchmarks._archives import archive
from benchmarks._records import RECORD
from benchmarks.papers._experiment import Experiment, Settings, Table, interval
from benchmarks.papers._plot import plot
from benchmarks.papers._registry import DOCUMENTS, ENTRIES
from benchmarks.papers._results import path_of, rows, run, written
from metalearn import keep_large_blocks

OF_IMAGES = ("minutes", "statistics", "tasks", "meta_batch_size", "filters", "looks")

POSITIVE = ("seeds", "fraction", "minutes", "tasks", "meta_batch_size", "filters")


def listing() -> str:
    """Return all tables and figures as Markdown."""
    lines = []
    for document, entries in DOCUMENTS.items():
        lines += ["", f"**{document}**", "", "| | | command | state |", "|---|---|---|---|"]
        for entry in entries:
            command = f"`{entry.command}`" if entry.command else ""
            lines.append(f"| {entry.label} | {entry.what} | {command} | {entry.state()} |")
    return "\n".join(lines[1:])


def parsed() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__)
    parser.add_argument("name", choices=["list", *ENTRIES], metavar="NAME")
    parser.add_argument("--seeds", type=int, help="5; of images, one after the other, 1")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--rows", nargs="+", default=["*"], help="patterns of the rows to run, such as 'TURTLE*'"
    )
    parser.add_argument("--columns", default="*", help="pattern of the columns, such as '5-shot'")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="part of the paper's iterations"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("--out", type=Path, default=Path("runs/papers"))
    parser.add_argument("--record", type=Path, help=RECORD)
    parser.add_argument(
        "--show",
        action="store_true",
        help="run nothing; print what has been run with these settings",
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--minutes", type=float, help="to train each method for, in place of a number of tasks"
    )
    images.add_argument(
        "--statistics", choices=["transductive", "support"], help="of batch normalisation"
    )
    images.add_argument("--tasks", type=int, help="of the last evaluation (600)")
    images.add_argument("--meta-batch-size", type=int, help="tasks in a meta-step")
    images.add_argument("--filters", type=int, help="of every convolution")
    images.add_argument("--looks", type=int, help="validations in the minutes of training (0)")
    images.add_argument("--autocast", action="store_true", help="to bfloat16")
    images.add_argument("--cuda-graph", action="store_true", help="train by replay of a CUDA graph")
    return parser, parser.parse_args()


def settings_of(
    table: Table, arguments: argparse.Namespace, parser: argparse.ArgumentParser
) -> Settings:
    """Return how to run a table; end with an error if it cannot be run so."""
    of_images = {name: getattr(arguments, name) for name in OF_IMAGES}
    given = {name: value for name, value in of_images.items() if value is not None}
    given |= {name: True for name in ("autocast", "cuda_graph") if getattr(arguments, name)}
    if given and not table.images:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        parser.error(f"{names} must be left out: {arguments.name} is not of images")
    for name in POSITIVE:
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be positive; got {value}")
    seeds, compile = arguments.seeds, arguments.compile
    return Settings(
        (1 if table.images else 5) if seeds is None else seeds,
        arguments.device,
        arguments.fraction,
        not table.images if compile is None else compile,
        **given,
    )


def chosen(
    table: Table, arguments: argparse.Namespace, parser: argparse.ArgumentParser
) -> list[Experiment]:
    """Return the experiments to run; end with an error if there are none."""
    found = [
        experiment
        for experiment in table.experiments
        if any(fnmatch(experiment.row, pattern) for pattern in arguments.rows)
        and any(fnmatch(column, arguments.columns) for column in experiment.paper)
    ]
    if not found:
        cells = [f"{each.row} | {column}" for each in table.experiments for column in each.paper]
        parser.error(f"no cell like {arguments.rows} | {arguments.columns!r}; there are {cells}")
    return found


def main() -> None:
    parser, arguments = parsed()
    if arguments.name == "list":
        print(listing())
        return
    make = ENTRIES[arguments.name].table
    assert make is not None  # of those that can be chosen
    table = make()
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # on a GPU: faster, and a seed is then no longer exact
    settings, experiments = settings_of(table, arguments, parser), chosen(table, arguments, parser)
    paths = [path_of(arguments.out / arguments.name, experiment) for experiment in experiments]
    known = [written(path, settings) for path in paths]
    if not arguments.show:
        for experiment, cells in zip(experiments, known, strict=True):
            for name in experiment.archives if cells is None else ():
                archive(name)  # before any row is computed
        for index, experiment in enumerate(experiments):
            if known[index] is None:
                known[index] = run(paths[index], experiment, settings)
    found = [(each, cells) for each, cells in zip(experiments, known, strict=True) if cells]
    print(f"\n{table.title}\n")
    said = {name: value for name, value in settings.known().items() if value is not None}
    columns, lines = rows(table, found)
    records.show(columns, lines, {**said, "interval": interval(settings, table)}, arguments.record)
    if found:
        plot(table, found, arguments.out / f"{arguments.name}.png")


if __name__ == "__main__":
    keep_large_blocks()
    main()
