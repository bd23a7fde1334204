"""Meta-iterations side by side with other libraries: `python -m benchmarks.speed`.

Every system runs in its own process, in the environment that its script names (made by uv at
the first run), on the same arrays and with the same allocator. Processes take turns, so that only
one works at a time; the medians of several rounds are compared. A system that does not install,
run, or agree on the gradient is shown as such.
"""

import argparse
import json
import platform
import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._records import show
from benchmarks.peers._workload import Workload, arrays
from benchmarks.speed._cases import CASES, ON_GPU, SCRIPTS
from benchmarks.speed._process import PATIENCE, Process
from benchmarks.speed._report import COLUMNS, plot, rows


class Contest:
    """Systems on one workload; one that fails drops out, with its error in its record.

    Args:
        workload: What they compute.
        systems: Their names.
        arguments: The command line.
    """

    def __init__(
        self, workload: Workload, systems: tuple[str, ...], arguments: argparse.Namespace
    ) -> None:
        self.folder, self.workload, self.arguments = arguments.out.resolve(), workload, arguments
        options = (arguments.device, arguments.large_blocks, arguments.threads)
        self.records: dict[str, dict[str, Any]] = {
            name: {"system": name, "seconds": []} for name in systems
        }
        self.processes = {
            name: Process(*SCRIPTS[name], *options, self.folder / f"{name}.log", arguments.peers)
            for name in systems
        }

    def ask(self, name: str, do: str, **order: Any) -> Any:
        """Return a system's answer; None if it has failed."""
        if "error" in self.records[name]:
            return None
        try:
            return self.processes[name].ask(do, **order)
        except RuntimeError as error:
            self.records[name]["error"] = str(error)
            return print(f"{self.workload.name}, {name}: {error}", flush=True)

    def build(self) -> None:
        """Let every system build the workload, and compare their gradients."""
        given, gradient, reference = self.folder / "arrays.npz", self.folder / "gradient.npz", None
        np.savez(given, **arrays(self.workload))

        def build(name: str) -> Any:
            order = {
                "workload": asdict(self.workload),
                "arrays": str(given),
                "patience": self.arguments.patience,
            }
            return self.ask(name, "build", **order)

        with ThreadPoolExecutor(self.arguments.builds) as pool:
            built = dict(zip(self.records, pool.map(build, self.records), strict=True))
        for name, record in self.records.items():
            if not built[name]:
                continue
            record["first_seconds"] = built[name]
            record["peak_bytes"] = self.ask(name, "peak")
            if name != "floor" and self.ask(name, "gradient", to=str(gradient)):
                got = list(np.load(gradient).values())
                reference = got if reference is None else reference
                record["deviation"] = deviation(got, reference)

    def drop(self, name: str) -> None:
        """Let a system go that is not timed."""
        del self.records[name]
        self.processes.pop(name).close()

    def time(self, rounds: int, at_least: float, warm_up: int = 1) -> None:
        """Let the systems take turns; the first rounds warm up."""
        for round_ in range(warm_up + rounds):
            for name, record in self.records.items():
                seconds = self.ask(name, "time", at_least=at_least, clock=self.arguments.clock)
                if round_ >= warm_up and seconds is not None:
                    record["seconds"].append(seconds)
        for process in self.processes.values():
            process.close()
        for record in self.records.values():
            record["median"] = statistics.median(record["seconds"]) if record["seconds"] else None


def deviation(gradient: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Return the relative distance of two gradients."""
    ours, theirs = (
        np.concatenate([leaf.ravel() for leaf in leaves] or [[0]])
        for leaves in (gradient, reference)
    )
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))


def add_options(parser: argparse.ArgumentParser, rounds: int, seconds: float, out: Path) -> None:
    """Add what `Contest` reads of a command line, with these defaults."""
    parser.add_argument(
        "--systems", nargs="+", default=["*"], help="patterns, such as '*compiled' Unrolled"
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help="that one measurement takes at least (%(default)s)",
    )
    parser.add_argument(
        "--clock",
        choices=("perf_counter", "process_time"),
        default="perf_counter",
        help="the latter is CPU time, beside other work (%(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of a process (%(default)s)")
    parser.add_argument("--large-blocks", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--peers", type=Path, help="folder of the peers' packages, in place of environments by uv"
    )
    parser.add_argument(
        "--builds", type=int, default=1, help="systems that are built at a time (%(default)s)"
    )
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds to build (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=out)


def chosen_of(systems: tuple[str, ...], patterns: list[str]) -> tuple[str, ...]:
    """Return the systems whose names match a pattern."""
    return tuple(name for name in systems if any(fnmatch(name, each) for each in patterns))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--workloads", default="*", help="pattern, such as 'W1*'")
    add_options(parser, rounds=15, seconds=0.1, out=Path("runs/speed"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "speed.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    settings = {
        name: getattr(arguments, name)
        for name in ("rounds", "seconds", "clock", "threads", "large_blocks", "device")
    }
    device = (
        torch.cuda.get_device_name()
        if arguments.device == "cuda"
        else platform.processor() or platform.machine()
    )
    print(f"torch {torch.__version__}, {device}, {settings}", flush=True)
    for workload, systems in CASES if arguments.device == "cpu" else ON_GPU:
        chosen = chosen_of(systems, arguments.systems)
        if fnmatch(workload.name, arguments.workloads) and chosen:
            contest = Contest(workload, chosen, arguments)
            contest.build()
            contest.time(arguments.rounds, arguments.seconds)
            records = list(contest.records.values())
            known[workload.name] = {
                "workload": asdict(workload),
                "settings": settings,
                "systems": records,
            }
            path.write_text(json.dumps(known, indent=1))
            print(f"\n**{workload.name}**\n")
            show(
                COLUMNS,
                rows(records),
                settings,
                arguments.out / f"{re.sub(r'[^a-z0-9]+', '_', workload.name.lower())}.json",
            )
    plot(known, arguments.out / "speed.png")


if __name__ == "__main__":
    main()
