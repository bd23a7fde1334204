"""Error, time and memory of all meta-gradients on one problem: `python -m benchmarks.estimators`.

The problem is logistic regression by gradient descent from zero, with 100 features and 400 examples
with noisy labels in each of the two sets. The meta-parameters are the logarithms of 100 penalties,
one per weight, next to a constant one of 0.05. The error is the relative distance to the gradient
at the inner problem's solution, which the implicit gradient approximates for any number of steps
and the others for many; the table also says how well the inner problem is solved. Computed in
float64; times are CPU times of one thread, medians over several rounds that alternate the
estimators.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import _records as records
from metalearn import inner, outer, testing
from metalearn.types import Batch, Episode, Estimate, Meta, Problem

STRENGTH, RATE, DIM, EXAMPLES = 0.05, 1.0, 100, 400
IMPLICIT = partial(outer.Implicit, STRENGTH)
ESTIMATORS = {
    "Unrolled()": outer.Unrolled(),
    "Unrolled(order=1)": outer.Unrolled(order=1),
    "Unrolled(truncate=5)": outer.Unrolled(truncate=5),
    "Stepwise()": outer.Stepwise(),
    "ForwardMode()": outer.ForwardMode(),
    "Implicit, CG(5)": IMPLICIT(outer.CG(5)),
    "Implicit, CG(20)": IMPLICIT(outer.CG(20)),
    "Implicit, Neumann(20, rate=0.1)": IMPLICIT(outer.Neumann(20, rate=0.1)),
    "Implicit, Direct()": IMPLICIT(outer.Direct()),
    "EvolutionStrategies(100)": outer.EvolutionStrategies(num_pairs=100, std=0.01),
}


def cross_entropy(params: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(batch.x @ params["w"], batch.y)


def penalised(params: Any, shared: Any, episode: Episode, step: int) -> torch.Tensor:
    penalty = 0.5 * (shared["log_decay"].exp() * params["w"].square()).sum()
    return cross_entropy(params, episode.support) + penalty


def anchored(params: Any, shared: Any, episode: Episode, step: int) -> torch.Tensor:
    """Return `Implicit`'s inner objective, for estimators that do not add the distance."""
    return penalised(params, shared, episode, step) + 0.5 * STRENGTH * params["w"].square().sum()


def on_query(params: Any, shared: Any, episode: Episode) -> torch.Tensor:
    return cross_entropy(params, episode.query)


def draw() -> tuple[Meta, Episode]:
    """Draw a task whose features matter less and less, and penalties to start with."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    w, x, noise = (
        normal(DIM) / torch.arange(1, DIM + 1) ** 0.5,
        normal(2, EXAMPLES, DIM),
        normal(2, EXAMPLES),
    )
    y = (x @ w + noise > 0).double()
    episode = Episode(Batch(x[0], y[0]), Batch(x[1], y[1]))
    return Meta({"w": torch.zeros(DIM).double()}, {"log_decay": normal(DIM) - 4}, {}), episode


def estimate_by(
    estimator: outer.MetaGradient, num_steps: int
) -> Callable[[Meta, Episode], Estimate]:
    loss = penalised if isinstance(estimator, outer.Implicit) else anchored
    problem = Problem(loss, on_query, inner.SGD(RATE), num_steps, constant=frozenset({"w"}))
    return lambda meta, episode: estimator(problem, meta, episode, torch.tensor(0), ())


def learned(estimate: Estimate) -> torch.Tensor:
    return estimate.gradient.shared["log_decay"]


def measure(steps: list[int], rounds: int) -> list[dict[str, Any]]:
    meta, episode = draw()
    exact = learned(estimate_by(IMPLICIT(outer.Direct()), 5000)(meta, episode))
    results = []
    for num_steps in steps:
        functions = {
            name: estimate_by(estimator, num_steps) for name, estimator in ESTIMATORS.items()
        }
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(rounds + 1):  # the first one warms up
            for name, function in functions.items():
                start = time.process_time()
                function(meta, episode)
                times[name].append(time.process_time() - start)
        for name, function in functions.items():
            estimate = function(meta, episode)
            error = ((learned(estimate) - exact).norm() / exact.norm()).item()
            peak = testing.peak_live_bytes(partial(function, meta, episode))
            median = statistics.median(times[name][1:])
            row = {
                "estimator": name,
                "steps": num_steps,
                "error": error,
                "seconds": median,
                "bytes": peak,
            }
            results.append(
                row | {name: value.item() for name, value in estimate.diagnostics.items()}
            )
    return results


def show(results: list[dict[str, Any]], steps: list[int], rounds: int, out: Path) -> None:
    """Print how well the inner problem is solved; print and record one table per quantity."""
    solved = [
        f"{row['inner_gradient']:.2g}"
        for row in results
        if row["estimator"] == "Implicit, Direct()"
    ]
    print(f"\ninner gradient relative to the start's, T = {steps}: {', '.join(solved)}")
    titles = {
        "error": ("relative error", 1.0),
        "seconds": ("time, ms", 1e3),
        "bytes": ("peak of live bytes, kB", 1e-3),
    }
    for quantity, (title, unit) in titles.items():
        lines = []
        for name in ESTIMATORS:
            values = [unit * row[quantity] for row in results if row["estimator"] == name]
            lines.append(
                [name, *(f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values)]
            )
        print()
        settings = {"device": "one CPU thread", "dtype": "float64", "rounds": rounds}
        records.show(
            [title, *(f"T = {n}" for n in steps)],
            lines,
            settings,
            out / f"estimators_{quantity}.json",
        )


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the three quantities by number of steps, both axes logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    titles = {"error": "relative error", "seconds": "time in s", "bytes": "peak of live bytes"}
    for axis, (quantity, title) in zip(axes, titles.items(), strict=True):
        for index, name in enumerate(ESTIMATORS):
            rows = [row for row in results if row["estimator"] == name]
            line = {
                "color": f"C{index}",
                "marker": "os^v"[index % 4],
                "markersize": 4,
                "label": name,
            }
            axis.loglog([row["steps"] for row in rows], [row[quantity] for row in rows], **line)
        axis.set(xlabel="inner steps", title=title)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 10, 20, 50, 100])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.steps, arguments.rounds)
    show(results, arguments.steps, arguments.rounds, arguments.out)
    plot(results, arguments.out / "estimators.png")
    (arguments.out / "estimators.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
