"""Train methods for few-shot images within a time budget each.

`METALEARN_DATA=folder python -m benchmarks.images NAME` reads archives in the folder, as
`ClassImages.from_npz` does. All methods train for the same time: CPU time of one thread on a CPU,
otherwise wall time, without evaluations. The outer learning rate follows a half cosine to 0. Each
result is written to a file and not computed again with the same settings.
"""

import argparse
import math
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from benchmarks import _records as records
from benchmarks._records import RECORD, keep, kept
from benchmarks.images._methods import Method
from benchmarks.images._problems import PROBLEMS, Problem
from metalearn import Evaluation, data, evaluate, fit, functional, keep_large_blocks, outer

METRICS = {"accuracy": functional.accuracy}
LOOK_EVERY = 20
"""Iterations between looks at the clock."""


@dataclass(frozen=True)
class Run:
    """One method on one problem.

    Attributes:
        problem: What is classified.
        method: How.
        images: The problem's classes, on the device.
        arguments: The command line.
    """

    problem: Problem
    method: Method
    images: dict[str, data.ClassImages]
    arguments: argparse.Namespace

    def __call__(self) -> dict[str, Any]:
        """Train, and return the time, the iterations, the curve and the accuracies."""
        torch.manual_seed(self.arguments.seed)
        tasks = self.problem.sampler(self.images["train"], self.method.shots)
        batches: dict[str, data.TaskDistribution] = {
            "episodes": tasks,
            "training sets": data.SupportAsQuery(tasks),
            "mini-batches": data.MiniBatches(self.images["train"], 16),
        }
        flat = self.method.sees == "mini-batches"
        num_classes = len(self.images["train"]) if flat else tasks.n_way
        model = self.problem.network(
            self.method, num_classes, self.arguments.statistics, self.arguments.filters
        )
        learner = self.method.build(model).to(self.arguments.device)
        learner.set_batching(compile=self.arguments.compile, cuda_graph=self.arguments.cuda_graph)
        if self.arguments.cuda_graph:
            batches = {name: data.CudaGraph(of_name) for name, of_name in batches.items()}
        trained: dict[str, Any] = {"seconds": 0, "iterations": 0, "curve": []}
        if self.method.sees in batches:
            size = 1 if flat else self.arguments.meta_batch_size
            trained = self.train(learner, batches[self.method.sees], size)
        rest = [name for name in self.images if name not in ("train", "val")]
        scores = {name: self.score(learner, name, self.arguments.tasks) for name in (*rest, "val")}
        accuracies = {
            name: [result["accuracy"].mean, result["accuracy"].ci95]
            for name, result in scores.items()
        }
        return {**trained, "accuracies": accuracies, "statistics": scores["val"].batch_statistics}

    def train(
        self, learner: outer.MetaLearner, batches: data.TaskDistribution, size: int
    ) -> dict[str, Any]:
        """Train until the time is over, and look at the validation classes now and then."""
        fused = self.arguments.device != "cpu"
        optimizer = self.method.optimizer(learner.parameters(), lr=self.method.lr, fused=fused)  # type: ignore[call-arg]
        budget, seconds, iterations = 60 * self.arguments.budget, 0.0, 0
        curve: list[tuple[int, int, float]] = []
        learner(batches.sample(size, device=learner.device))  # the checks of a first call
        while seconds < budget:
            optimizer.param_groups[0]["lr"] = self.method.lr * (
                0.5 + 0.5 * math.cos(math.pi * seconds / budget)
            )
            start = self.clock()
            fit(
                learner,
                batches,
                optimizer,
                LOOK_EVERY,
                meta_batch_size=size,
                max_grad_norm=self.method.max_grad_norm,
                progress=False,
            )
            seconds += self.clock() - start
            iterations += LOOK_EVERY
            if math.floor(seconds / budget * self.arguments.looks) > len(curve):
                curve.append(
                    (round(seconds), iterations, self.score(learner, "val", 200)["accuracy"].mean)
                )
                print(
                    f"{seconds:6.0f} s, {iterations} iterations, {100 * curve[-1][2]:.1f} %",
                    flush=True,
                )
        return {"seconds": round(seconds), "iterations": iterations, "curve": curve}

    def clock(self) -> float:
        """Return the time that counts: a single thread's own, or all that passes."""
        if self.arguments.device == "cpu" and self.arguments.threads == 1:
            return time.process_time()
        if self.arguments.device != "cpu":
            torch.cuda.synchronize(self.arguments.device)
        return time.perf_counter()

    def score(self, learner: outer.MetaLearner, split: str, num_tasks: int) -> Evaluation:
        """Evaluate on the tasks of one split, the same ones each time."""
        tasks, generator = (
            self.problem.sampler(self.images[split]),
            torch.Generator().manual_seed(1),
        )
        judged = self.method.judged(learner, tasks.n_way).eval()
        result = evaluate(judged, tasks, num_tasks=num_tasks, metrics=METRICS, generator=generator)
        learner.train()
        return result


def read(problem: Problem, device: str) -> dict[str, data.ClassImages]:
    """Return the problem's classes on the device; end with an error if they are not there."""
    return {split: classes.to(device) for split, classes in problem.images().items()}


def show(
    name: str,
    results: dict[str, dict[str, Any]],
    settings: dict[str, Any] | None = None,
    path: Path | None = None,
) -> None:
    """Print all results beside the papers' accuracies, and record them if there is a path."""
    columns = list(
        dict.fromkeys(split for result in results.values() for split in result["accuracies"])
    )
    heads = [name, *columns, "the paper, full length", "iterations", "time", "batch statistics"]
    lines = []
    for row, method in PROBLEMS[name].methods.items():
        paper = method.paper.get(name.removesuffix("_shuffled"), "")
        if row not in results:
            lines.append([row, *("not run" for _ in columns), paper, "", "", ""])
            continue
        result = results[row]
        cells = [
            f"{100 * mean:.2f} +- {100 * half:.2f} %"
            for mean, half in result["accuracies"].values()
        ]
        rest = [paper, f"{result['iterations']:,}", f"{result['seconds']} s", result["statistics"]]
        lines.append([row, *cells, *rest])
    print()
    records.show(heads, lines, settings or {}, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("name", choices=PROBLEMS)
    parser.add_argument(
        "--methods", default="*", help="pattern of the methods to run, such as '*MAML*'"
    )
    parser.add_argument(
        "--budget", type=float, default=10, help="minutes to train each for (%(default)s)"
    )
    sources = ["transductive", "support"]
    parser.add_argument(
        "--statistics",
        choices=sources,
        default=sources[0],
        help="of batch normalisation (%(default)s)",
    )
    parser.add_argument(
        "--looks", type=int, default=5, help="validations while it trains (%(default)s)"
    )
    parser.add_argument(
        "--tasks", type=int, default=600, help="tasks of the last evaluation (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU (%(default)s)")
    parser.add_argument(
        "--autocast", action="store_true", help="train and evaluate under autocast to bfloat16"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="train compiled; compiling does not count as training",
    )
    parser.add_argument("--cuda-graph", action="store_true", help="train by replay of a CUDA graph")
    parser.add_argument(
        "--meta-batch-size", type=int, default=4, help="tasks in a meta-step (%(default)s)"
    )
    parser.add_argument(
        "--filters", type=int, help="of every convolution; the problem's if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--record", type=Path, help=RECORD)
    parser.add_argument(
        "--show",
        action="store_true",
        help="run nothing; print what has been run with these settings",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True  # on a GPU: faster, and a seed is then no longer exact
    problem = PROBLEMS[arguments.name]
    images = {} if arguments.show else read(problem, arguments.device)
    apart = ("name", "methods", "looks", "out", "record", "show")
    settings = {key: value for key, value in vars(arguments).items() if key not in apart}
    results = {}
    for row, method in problem.methods.items():
        path = (
            arguments.out
            / arguments.name
            / f"{row}, {arguments.statistics}, seed {arguments.seed}.json"
        )
        record = kept(path, settings)
        if record is None and not arguments.show and fnmatch(row, arguments.methods):
            print(f"{row}:", flush=True)
            with torch.autocast(
                torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.autocast
            ):
                record = Run(problem, method, images, arguments)()
            keep(path, settings, record)
        if record is not None:
            results[row] = record
    interval = (
        f"95 % over the {arguments.tasks:,} test tasks of one run; the papers' are as they print "
        "them"
    )
    show(arguments.name, results, {**settings, "interval": interval}, arguments.record)


if __name__ == "__main__":
    keep_large_blocks()
    main()
