"""Meta-gradients of a transformer side by side.

A causal transformer (width 128, 4 heads) takes K inner steps of SGD or Adam on 8 sequences of 128
tokens; the gradient of its loss on 8 others is taken with respect to its start. Every system is a
process of its own, as in `benchmarks.speed`. Errors are relative distances to the gradient of a
hand-written loop in float64, peaks are of live bytes. The first step has what a system does once in
it, such as compiling. Betty is left out, since none of its hypergradients is that of a path: they
are implicit, finite differences, or by reinforcement.
"""

import re
from dataclasses import replace
from typing import Any

from benchmarks._records import show
from benchmarks.peers._workload import Workload
from benchmarks.speed.__main__ import Contest, chosen_of

EXACT = "autograd.grad loop in float64"
LOOP = "autograd.grad loop"
SYSTEMS = (
    "higher",
    "TorchOpt",
    "BOAT",
    "Unrolled",
    "Stepwise",
    "Stepwise by blocks",
    "Unrolled, compiled by step",
)
COLUMNS = ["", "time", "of the loop's", "peak", "of the loop's", "gradient's error", "first step"]
WORKLOAD = Workload("transformer", 1, 16, support=8, query=8, num_layers=4)
RATES = {"sgd": 0.1, "adam": 1e-3}


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of a table; ratios are to the hand-written loop."""
    loop = next(record for record in records if record["system"] == LOOP)
    lines = []
    for record in records:
        if record["median"] is None:
            reason = record.get("error", "")[:200]
            lines.append([record["system"], f"failed: {reason}", *[""] * (len(COLUMNS) - 2)])
            continue
        lines.append(
            [
                record["system"],
                f"{record['median']:.2f} s",
                f"{record['median'] / loop['median']:.2f}" if loop["median"] else "",
                f"{record['peak_bytes'] / 1e6:,.0f} MB",
                f"1/{loop['peak_bytes'] / record['peak_bytes']:.1f}" if loop["median"] else "",
                f"{record['deviation']:.0e}",
                f"{record['first_seconds']:.1f} s",
            ]
        )
    return lines


def measure(workload: Workload, systems: tuple[str, ...], arguments: Any) -> list[dict[str, Any]]:
    """Return the record of every system on a workload."""
    contest = Contest(workload, systems, arguments)
    contest.build()
    contest.drop(EXACT)
    contest.time(arguments.rounds, arguments.seconds, warm_up=0)  # the gradient was that
    return list(contest.records.values())


def main(arguments: Any) -> None:
    """Print and record a table for every rule and number of steps."""
    names = ("rounds", "clock", "threads", "large_blocks", "device", "layers")
    settings = {name: getattr(arguments, name) for name in names}
    systems = EXACT, LOOP, *chosen_of(SYSTEMS, arguments.systems)
    for rule in arguments.rules:
        for num_steps in arguments.steps:
            workload = replace(
                WORKLOAD,
                name=f"transformer {rule} {num_steps}",
                num_steps=num_steps,
                rule=rule,
                lr=RATES[rule],
                num_layers=arguments.layers,
            )
            records = measure(workload, systems, arguments)
            print(f"\n**{workload.name}**\n")
            file = re.sub(r"\W+", "_", f"bilevel {workload.name}")
            show(COLUMNS, rows(records), settings, arguments.out / f"{file}.json")
