"""Search for a cell for 20-way 1-shot Omniglot and compare it with Conv-4.

`METALEARN_DATA=folder python -m benchmarks.search` trains each candidate by Reptile for a few
iterations and evaluates it on the validation characters. The best one is then trained longer, as is
Conv-4 with 32 filters, whose number of parameters no candidate may exceed; both are evaluated on
the test characters. A killed search resumes from its log. Progress and the best cell are drawn.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import _records as records
from benchmarks._records import RECORD
from benchmarks.images._problems import CHARACTERS, GREY, Problem, omniglot
from metalearn import keep_large_blocks, models, search

PROBLEM = Problem(omniglot, {"n_way": 20, "k_shot": 1, "num_query": 5}, GREY, {}, CHARACTERS)
TRAIN_SHOTS = 5
"""Support images of a class in training, one of each in each of five inner steps."""


def cost_of(model: torch.nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def find(
    score: search.ReptileScore, most: int, arguments: argparse.Namespace
) -> search.SearchResult:
    """Search within the budget of time, looked at between rounds."""
    end = time.monotonic() + 60 * arguments.minutes

    def allowed(cell: search.Cell) -> bool:
        network = search.Network(cell, score.num_cells, score.num_filters)
        return time.monotonic() < end and search.cost(network, 1, 20).parameters <= most

    settings = {
        "num_blocks": arguments.blocks,
        "num_candidates": arguments.candidates,
        "num_first": arguments.first,
    }
    progressive = search.ProgressiveSearch(
        **settings, operators=tuple(arguments.operators), allowed=allowed, seed=arguments.seed
    )
    names = ("num_iterations", "num_filters", "num_tasks", "inner_lr", "seed")
    settings_of_score = ", ".join(f"{name} {getattr(score, name)}" for name in names)
    return progressive.run(score, log=arguments.out / f"search, {settings_of_score}.jsonl")


def plot(result: search.SearchResult, path: Path) -> None:
    """Draw all scores in their order, and the best cell."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    scored = [
        (index, trial) for index, trial in enumerate(result.trials, 1) if trial.score is not None
    ]
    for blocks in sorted({len(trial.cell.blocks) for _, trial in scored}):
        points = [
            (index, 100 * (trial.score or 0))
            for index, trial in scored
            if len(trial.cell.blocks) == blocks
        ]
        left.plot(*zip(*points, strict=True), "o", label=f"{blocks} block{'s' * (blocks > 1)}")
    best = [
        max(100 * (trial.score or 0) for _, trial in scored[:count])
        for count in range(1, len(scored) + 1)
    ]
    left.step([index for index, _ in scored], best, where="post", color="grey", label="best so far")
    left.set(xlabel="candidate", ylabel="accuracy in %, validation", title="progress")
    left.legend(frameon=False)
    draw(result.best.cell, right)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw(cell: search.Cell, axes) -> None:
    """Draw a cell from its inputs at the bottom to its output at the top."""
    places = {-2: (-1.0, 0.0), -1: (1.0, 0.0)}
    places |= {index: (0.7 * (-1) ** index, 1.5 * (index + 1)) for index in range(len(cell.blocks))}
    texts = {
        -2: "cell before last",
        -1: "last cell",
        **{index: f"block {index}: +" for index in range(len(cell.blocks))},
    }
    top = (0.0, 1.5 * (len(cell.blocks) + 1))
    for index, block in enumerate(cell.blocks):
        sides = (
            (block.left_operator, block.left, -0.15),
            (block.right_operator, block.right, 0.15),
        )
        for operator, source, shift in sides:
            (x0, y0), (x1, y1) = places[source], places[index]
            ends = {"xy": (x1 + shift, y1 - 0.12), "xytext": (x0 + shift, y0 + 0.12)}
            axes.annotate("", **ends, arrowprops={"arrowstyle": "->", "color": "grey"})
            axes.text(
                (x0 + x1) / 2 + 2 * shift, (y0 + y1) / 2 + shift, operator, ha="center", fontsize=8
            )
    for index in cell.outputs:
        x, y = places[index]
        axes.annotate(
            "", xy=(top[0], top[1] - 0.12), xytext=(x, y + 0.12), arrowprops={"arrowstyle": "->"}
        )
    for name, (x, y) in {**places, "": top}.items():
        text = texts.get(name, "output: side by side")
        axes.text(x, y, text, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white"})
    axes.set(xlim=(-2, 2), ylim=(-0.5, top[1] + 0.5), title="best cell")
    axes.axis("off")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=60,
        help="after which no round begins (%(default)s)",
    )
    parser.add_argument("--blocks", type=int, default=3, help="of the largest cells (%(default)s)")
    parser.add_argument("--first", type=int, default=16, help="cells of one block (%(default)s)")
    parser.add_argument(
        "--candidates", type=int, default=16, help="cells of each further size (%(default)s)"
    )
    parser.add_argument(
        "--operators", nargs="+", default=list(search.OPERATORS), choices=search.OPERATORS
    )
    parser.add_argument("--filters", type=int, default=16, help="of a cell (%(default)s)")
    parser.add_argument("--iterations", type=int, default=100, help="of a candidate (%(default)s)")
    parser.add_argument(
        "--final", type=int, default=2000, help="of the best and of Conv-4 (%(default)s)"
    )
    parser.add_argument(
        "--tasks", type=int, default=40, help="that judge a candidate (%(default)s)"
    )
    parser.add_argument(
        "--final-tasks", type=int, default=600, help="that judge at the end (%(default)s)"
    )
    parser.add_argument(
        "--inner-lr", type=float, default=3e-3, help="rate of the inner Adam (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/search"))
    parser.add_argument("--record", type=Path, help=RECORD)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = PROBLEM.read(arguments.device)
    score = search.ReptileScore(
        PROBLEM.sampler(images["train"], TRAIN_SHOTS),
        PROBLEM.sampler(images["val"]),
        num_filters=arguments.filters,
        num_iterations=arguments.iterations,
        inner_lr=arguments.inner_lr,
        num_tasks=arguments.tasks,
        seed=arguments.seed,
        device=arguments.device,
    )
    torch.manual_seed(arguments.seed)
    conv4 = models.conv4(num_classes=20, **GREY)
    result = find(score, cost_of(conv4), arguments)
    best = result.best
    correlations = (
        ", ".join(f"{value:.2f}" for value in result.rank_correlations if not math.isnan(value))
        or "none"
    )
    print(
        f"{len(result.trials)} candidates; rank correlations: {correlations}; best: {best.cell}",
        flush=True,
    )
    plot(result, arguments.out / "search.png")

    final = replace(
        score,
        validation=PROBLEM.sampler(images["test"]),
        num_iterations=arguments.final,
        num_tasks=arguments.final_tasks,
        seed=arguments.seed + 1,
    )
    network = search.Network(best.cell, score.num_cells, score.num_filters)
    rows = []
    for name, model in {"Conv-4": conv4, "searched": search.build(network, 1, 20)}.items():
        start = time.process_time()
        accuracy = final.judge(model)
        seconds = time.process_time() - start
        rows.append([name, f"{100 * accuracy:.2f} %", f"{cost_of(model):,}", f"{seconds:.0f} s"])
    keys = ("iterations", "final", "filters", "tasks", "final_tasks", "inner_lr", "seed", "device")
    settings = {key: getattr(arguments, key) for key in keys}
    found = {
        "candidates": len(result.trials),
        "best": str(best.cell),
        "rank correlations": correlations,
    }
    print()
    columns = ["Omniglot, 20-way 1-shot", "test accuracy", "parameters", "time to train and judge"]
    records.show(columns, rows, settings | found, arguments.record)


if __name__ == "__main__":
    keep_large_blocks()
    main()
