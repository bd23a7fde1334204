"""The table and the plot of what has been measured."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.speed._cases import CASES, PYTORCH_PEERS, SCRIPTS

COLUMNS = ["", "time", "times as fast", "gradient's deviation", "peak"]


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of one workload's table; ratios are to the fastest peer on PyTorch."""
    fastest = min((record["median"] for record in records if is_peer(record)), default=None)
    lines = []
    for record in records:
        if record["median"] is None:
            lines.append([record["system"], f"failed: {record.get('error', '')[:200]}", "", "", ""])
            continue
        ratio = f"{fastest / record['median']:.2f}" if fastest else ""
        deviation = f"{record['deviation']:.0e}" if "deviation" in record else ""
        peak = f"{record['peak_bytes'] / 1e6:.1f} MB" if record.get("peak_bytes") else ""
        lines.append([record["system"], f"{1e3 * record['median']:.2f} ms", ratio, deviation, peak])
    return lines


def is_peer(record: dict[str, Any]) -> bool:
    """Return whether a record is of a peer on PyTorch, or the plain loop, that has run."""
    return record["median"] is not None and record["system"] in PYTORCH_PEERS | {
        "rule in a plain loop"
    }


def plot(measured: dict[str, Any], path: Path) -> None:
    """Draw the times of all systems, a panel for each workload."""
    columns, order = 3, [workload.name for workload, _ in CASES]
    titles = sorted(
        measured, key=lambda title: order.index(title) if title in order else len(order)
    )
    rows = -(-len(measured) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(15, 3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(measured) :]:
        axis.set_axis_off()
    for axis, title in zip(axes.flat, titles, strict=False):
        records = [record for record in measured[title]["systems"] if record["median"] is not None][
            ::-1
        ]
        ours = {name for name, (script, _) in SCRIPTS.items() if script == "use_metalearn"} - {
            "rule in a plain loop"
        }
        colours = ["tab:blue" if record["system"] in ours else "tab:grey" for record in records]
        bars = axis.barh(
            [record["system"] for record in records],
            [1e3 * r["median"] for r in records],
            color=colours,
        )
        axis.bar_label(bars, fmt=lambda ms: f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}", padding=3)
        axis.margins(x=0.2)
        axis.set(title=title, xlabel="ms an iteration")
    figure.savefig(path, dpi=100)
    plt.close(figure)
