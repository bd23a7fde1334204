"""The table and the plot of what has been measured."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.speed._cases import PYTORCH_PEERS


def table(title: str, records: list[dict[str, Any]]) -> str:
    """Return one workload's table as Markdown; ratios are to the fastest peer on PyTorch."""
    fastest = min((record["median"] for record in records if is_peer(record)), default=None)
    rows = [f"\n**{title}**\n", "| | time | times as fast | gradient's deviation | peak |", "|---|---|---|---|---|"]
    for record in records:
        if record["median"] is None:
            rows.append(f"| {record['system']} | failed: {record.get('error', '')[:200]} | | | |")
            continue
        ratio = f"{fastest / record['median']:.2f}" if fastest else ""
        deviation = f"{record['deviation']:.0e}" if "deviation" in record else ""
        peak = f"{record['peak_bytes'] / 1e6:.1f} MB" if record.get("peak_bytes") else ""
        rows.append(f"| {record['system']} | {1e3 * record['median']:.2f} ms | {ratio} | {deviation} | {peak} |")
    return "\n".join(rows)


def is_peer(record: dict[str, Any]) -> bool:
    """Return whether a record is of a peer on PyTorch, or the plain loop, that has run."""
    return record["median"] is not None and record["system"] in PYTORCH_PEERS | {"rule in a plain loop"}


def plot(measured: dict[str, Any], path: Path) -> None:
    """Draw the times of all systems, a panel for each workload."""
    columns = 3
    rows = -(-len(measured) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(15, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(measured) :]:
        axis.set_axis_off()
    for axis, (title, case) in zip(axes.flat, measured.items(), strict=False):
        records = [record for record in case["systems"] if record["median"] is not None][::-1]
        colours = ["tab:grey" if is_peer(record) or "JAX" in record["system"] else "tab:blue" for record in records]
        axis.barh([record["system"] for record in records], [1e3 * r["median"] for r in records], color=colours)
        axis.set(title=title, xscale="log", xlabel="ms an iteration")
    figure.savefig(path, dpi=100)
    plt.close(figure)
