"""Compare this working tree with a commit: `python -m benchmarks.compare BASE`.

`make bench-compare BASE=<commit>` does the same. Quick workloads run in two single-threaded
processes on one core: one imports BASE's package, the other the working tree's. Both take the
workloads of the working tree, which use only the public API. The processes take turns, and which is
first alternates from round to round.
"""

import argparse
import io
import signal
import statistics
import subprocess
import tempfile
import zipfile
from contextlib import ExitStack
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers._workload import Workload, arrays
from benchmarks.speed._cases import QUICK
from benchmarks.speed._process import ROOT, Process
from metalearn._checks import message

WINDOW = {"at_least": 0.3, "clock": "process_time"}  # other work on the core does not count
LINE = "{:30}{:>10}{:>9}  {:21}{:>14}{:>9}{:>12}{:>9}"
HEAD = ("", "ms before", "after", "after / before", "calls before", "after", "MB before", "after")
LEGEND = """
ms: CPU time of a meta-step, median of the rounds. after / before: median of the rounds' ratios
[interquartile range]; two processes of the same version differ by some percent. calls: Python
functions that a meta-step calls, its backward pass included. MB: peak of its live memory."""


def git(*words: str) -> bytes:
    """Return what git prints about this repository."""
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def unpack(base: str, folder: Path) -> str:
    """Write the package of a commit into a folder and return the commit's title."""
    try:
        title = git("log", "-1", "--format=%h %s", base, "--").decode().strip()
        archive = git("archive", "--format=zip", base, "metalearn")
    except subprocess.CalledProcessError as error:
        got = f"{base!r} ({error.stderr.decode().strip()})"
        fix = "Choose one of `git log --oneline`: make bench-compare BASE=HEAD~1."
        raise SystemExit(message("BASE", "be a commit with a metalearn/", got, fix)) from None
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
    return title


def start(name: str, tree: Path, folder: Path, stack: ExitStack) -> Process:
    """Return a process that has imported the package of a tree."""
    process = Process("use_metalearn", "", "cpu", True, 1, folder / f"{name}.log", tree=tree)
    stack.callback(process.close)
    try:
        package, expected = Path(process.ask("package")), tree / "metalearn" / "__init__.py"
    except RuntimeError as error:
        raise SystemExit(f"metalearn does not start {name}: {error}") from None
    if package.resolve() != expected.resolve():
        raise SystemExit(message(f"metalearn {name}", f"be imported from {expected}", package))
    return process


def each(processes: dict[str, Process], do: str, **order: Any) -> list[Any]:
    """Return what the processes answer; an error says which of them has failed."""
    answers = []
    for name, process in processes.items():
        try:
            answers.append(process.ask(do, **order))
        except RuntimeError as error:
            raise RuntimeError(f"failed {name}: {error}") from error
    return answers


def cells(
    workload: Workload, processes: dict[str, Process], folder: Path, rounds: int
) -> list[str]:
    """Return the row of a workload."""
    given = str(folder / "arrays.npz")
    np.savez(given, **arrays(workload))
    each(processes, "build", workload=asdict(workload), variant=QUICK[workload], arrays=given)
    peaks = each(processes, "peak")
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for index in range(rounds):
        for name in sorted(processes, reverse=index % 2 == 0):
            seconds[name] += each({name: processes[name]}, "time", **WINDOW)
    quartiles = np.percentile(np.divide(seconds["after"], seconds["before"]), [25, 50, 75])
    return [
        *(f"{1000 * statistics.median(seconds[name]):.2f}" for name in ("before", "after")),
        "{1:.3f} [{0:.3f}, {2:.3f}]".format(*quartiles),
        *(str(calls) for calls in each(processes, "calls")),
        *(f"{peak / 1e6:.2f}" if peak else "" for peak in peaks),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("base", metavar="BASE", help="the commit")
    parser.add_argument("--rounds", type=int, default=10, help="at least 1 (%(default)s)")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns, such as 'W1*'")
    arguments = parser.parse_args()
    chosen = [work for work in QUICK if any(fnmatch(work.name, p) for p in arguments.only)]
    if arguments.rounds < 1:
        parser.error(message("--rounds", "be at least 1", arguments.rounds))
    if not chosen:
        known = [work.name for work in QUICK]
        parser.error(message("--only", f"match one of {known}", arguments.only))
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        print(f"before: {unpack(arguments.base, folder / 'before')}")
        changes = git("diff", "--shortstat", arguments.base, "--", "metalearn").decode().strip()
        print(f"after: the working tree, metalearn/ {changes or 'unchanged'}\n", flush=True)
        trees = {"before": folder / "before", "after": ROOT}
        processes = {name: start(name, tree, folder, stack) for name, tree in trees.items()}
        print(LINE.format(*HEAD), flush=True)
        for workload in chosen:
            try:
                row = cells(workload, processes, folder, arguments.rounds)
            except RuntimeError as error:
                print(f"{workload.name}: {error}", flush=True)
            else:
                print(LINE.format(workload.name, *row), flush=True)
    print(LEGEND)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the folder is removed then too
    main()
