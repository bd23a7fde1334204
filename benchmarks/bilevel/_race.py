"""Hyperparameters optimised by every method: the loss that they lead to, against time.

Every system is a process in its own environment, one after the other, with the same data, starts,
inner rates and Adam on the hyperparameters. The loss is the outer one where the inner problem is
solved exactly for the hyperparameters at that time, outside of the clock, which is the process's
CPU time. Of one time are what a library does in its first step alone, as compiling, and is left
out.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from benchmarks._records import show
from benchmarks.bilevel._problems import Arrays, arrays, in_double, value
from benchmarks.speed.__main__ import chosen_of
from benchmarks.speed._process import ROOT, uv

OURS, BETTY, BOAT = "bilevel_metalearn", "bilevel_betty", "bilevel_boat"
SYSTEMS = {
    **{f"Betty, {name}": (BETTY, name) for name in ("darts", "sama", "cg", "neumann")},
    **{f"BOAT, {name}": (BOAT, name) for name in ("NGD+RAD", "NGD+CG", "NGD+NS", "NGD+FD")},
    **{f"BOAT, {name}": (BOAT, name) for name in ("VSO", "VFO", "MESO", "PGDO")},
    **{
        name: (OURS, name)
        for name in (
            "Unrolled, 100 steps",
            "Unrolled(truncate=10), 100 steps",
            "ForwardGradient(10), 100 steps",
            "EvolutionStrategies(10), 100 steps",
            "PersistentES(10)",
            "Unrolled windows",
            "Implicit, CG(10)",
            "Implicit, AmIGO",
            "Implicit, SOBA",
            "Implicit, differences",
            "OneStep",
            "Penalty",
            "Penalty, one step",
            "Implicit, CG(10), compiled",
            "Implicit, SOBA, compiled",
            "Penalty, one step, compiled",
        )
    },
}
WRITTEN = ("times", "hypers", "count")
COLUMNS = ["", "loss at the end", "steps a second", "seconds to the best peer's loss"]


class Run(NamedTuple):
    """What one system has done for one seed.

    Attributes:
        times: Seconds, rising from 0.
        losses: The losses then.
        count: Number of outer steps.
    """

    times: list[float]
    losses: list[float]
    count: int


def run(name: str, files: list[Path], problem: str, arguments: Any) -> Any:
    """Let a system optimise a problem for every seed, and return what it has written."""
    script, variant = SYSTEMS[name]
    path = ROOT / "benchmarks" / "peers" / f"{script}.py"
    out = arguments.out.resolve() / f"{problem}_run.npz"
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    if script == OURS:
        command, environment["PYTHONPATH"] = [sys.executable], str(ROOT)
    elif arguments.peers:
        command, environment["PYTHONPATH"] = [sys.executable], str(arguments.peers.resolve())
    else:
        command = [uv(), "run", "--quiet", "--no-project", "--script"]
    out.unlink(missing_ok=True)
    words = [*command, path, variant, problem, arguments.budget, out, *files]
    log = arguments.out / f"{script}.log"
    with log.open("a") as errors:
        subprocess.run(
            list(map(str, words)), env=environment, stdout=errors, stderr=errors, check=False
        )
    return np.load(out) if out.exists() else {"error": f"died: see {log}"}


def judged(problem: str, given: Arrays, times: Any, hypers: Any, count: int) -> Run:
    """Return a run with the losses of its hyperparameters."""
    data = in_double(given)
    losses, params = [], given["params"].astype(float)
    for hyper in hypers:
        if not np.isfinite(hyper).all():
            losses.append(math.inf)
            continue
        loss, params = value(problem, hyper, data, params)
        losses.append(loss)
    return Run(list(times), losses, int(count))


def time_to(run: Run, loss: float) -> float:
    """Return when a run first was at a loss, interpolated; infinity if it never was."""
    for index, reached in enumerate(run.losses):
        if reached <= loss:
            if index == 0:
                return 0.0
            before, start = run.losses[index - 1], run.times[index - 1]
            if not math.isfinite(before) or before == reached:
                return run.times[index]
            return start + (before - loss) / (before - reached) * (run.times[index] - start)
    return math.inf


def rows(runs: dict[str, list[Run] | str]) -> list[list[str]]:
    """Return the rows of the table: means over seeds, and times until every peer's best loss."""
    done = {name: each for name, each in runs.items() if not isinstance(each, str)}
    peers = [each for name, each in done.items() if SYSTEMS[name][0] != OURS]
    seeds = range(len(next(iter(done.values()))))
    best = [min((each[seed].losses[-1] for each in peers), default=-math.inf) for seed in seeds]
    lines = []
    for name, each in runs.items():
        if isinstance(each, str):
            lines.append([name, f"failed: {each[:100]}", "", ""])
            continue
        ends = np.array([run.losses[-1] for run in each])
        rates = np.mean([run.count / run.times[-1] for run in each])
        when = [time_to(run, loss) for run, loss in zip(each, best, strict=True)]
        reached = f"{np.mean(when):.2f}" if all(map(math.isfinite, when)) else "never"
        shown = " / ".join(f"{end:.4f}" for end in ends)
        lines.append([name, shown, f"{rates:.0f}", reached])
    return lines


def plot(runs: dict[str, list[Run] | str], file: Path) -> None:
    """Draw how far the first seed's losses are above the lowest, against time."""
    done = {name: each[0] for name, each in runs.items() if not isinstance(each, str)}
    lowest = min(run.losses[-1] for run in done.values())
    figure, axes = plt.subplots(figsize=(8, 5))
    styles, colors = {BETTY: "--", BOAT: ":", OURS: "-"}, plt.get_cmap("tab20").colors
    for index, (name, run) in enumerate(done.items()):
        above = np.maximum(np.array(run.losses[1:]) - lowest, 1e-6)
        style, color = styles[SYSTEMS[name][0]], colors[index % len(colors)]
        axes.plot(run.times[1:], above, style, color=color, label=name)
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="loss above the lowest")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120, bbox_inches="tight")


def main(arguments: Any) -> None:
    """Let all systems optimise a problem; print, plot and record what they reach."""
    problem = arguments.problem
    given = [arrays(problem, seed) for seed in range(arguments.seeds)]
    files = [arguments.out.resolve() / f"{problem}_{seed}.npz" for seed in range(len(given))]
    for file, each in zip(files, given, strict=True):
        np.savez(file, **each)
    runs: dict[str, list[Run] | str] = {}
    for name in chosen_of(tuple(SYSTEMS), arguments.systems):
        found = run(name, files, problem, arguments)
        if "error" in found:
            runs[name] = str(found["error"])
        else:
            runs[name] = [
                judged(
                    problem,
                    each,
                    *(found[f"{what}{seed}"] for what in ("times", "hypers", "count")),
                )
                for seed, each in enumerate(given)
            ]
        print(rows({name: runs[name]})[0][:3], flush=True)
    print(f"\n**{problem}**\n")
    settings = {
        "seeds": len(given),
        "budget": arguments.budget,
        "clock": "CPU time",
        "device": "cpu",
    }
    show(COLUMNS, rows(runs), settings, arguments.out / f"bilevel_{problem}.json")
    plot(runs, arguments.out / f"bilevel_{problem}.png")
