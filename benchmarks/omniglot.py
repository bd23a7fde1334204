"""Accuracy by training time on 5-way 1-shot Omniglot: `METALEARN_DATA=folder python -m benchmarks.omniglot`.

The folder holds omniglot.npz. Conv-4 with 32 filters, 5 query images a class; every method trains for the same CPU time
of one thread, evaluations not counted, with a meta-batch of 4 and Adam, whose rate falls from 3e-3 to 0 as half a
cosine wave over that time. Accuracy is transductive: on 200 tasks of the validation characters while it trains, on 600
of the test characters at the end.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, functional, inner, keep_large_blocks, models, outer

IN_FEW_STEPS = {  # the form of the paper's code
    "rule": inner.SGD(0.2),
    "num_steps": 6,
    "strength": 1.0,
    "proximal": "last_step",
    "system_strength": 12.0,
    "solver": outer.CG(2, damping=1.0),
}
REPRESENTATION = partial(outer.HyperRepresentation, rule=inner.LearnedRate(inner.SGD(0.1)), num_steps=5)
JOINT = outer.Unrolled(order=1, multi_step=outer.MultiStep())
METHODS: dict[str, tuple[Callable[..., outer.MetaLearner], bool]] = {  # and whether it sees training sets only
    "MAML": (partial(outer.MAML, rule=inner.SGD(0.4), num_steps=1), False),
    "iMAML": (partial(outer.IMAML, rule=inner.SGD(0.1), num_steps=16), False),
    "iMAML in few steps": (partial(outer.IMAML, **IN_FEW_STEPS), False),
    "bilevel": (REPRESENTATION, False),
    "approximate": (partial(REPRESENTATION, estimator=outer.Unrolled(order=1)), False),
    "bilevel, training sets": (REPRESENTATION, True),
    "joint, training sets": (partial(REPRESENTATION, estimator=JOINT), True),
}


def accuracy(learner: outer.MetaLearner, tasks: data.TaskDistribution, num_tasks: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    metrics = {"accuracy": functional.accuracy}
    return evaluate(learner, tasks, num_tasks=num_tasks, metrics=metrics, generator=generator)["accuracy"]


def run(method: str, arguments: argparse.Namespace, images: dict[str, data.ClassImages]) -> dict[str, Any]:
    """Train one method with one seed and return its accuracies."""
    build, training_sets = METHODS[method]
    tasks = {name: data.EpisodeSampler(classes, n_way=5, k_shot=1, num_query=5) for name, classes in images.items()}
    train = data.SupportAsQuery(tasks["train"]) if training_sets else tasks["train"]
    torch.manual_seed(arguments.seed)
    learner = build(models.conv4(1, 5, num_filters=32), F.cross_entropy).to(arguments.device)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    seconds, iterations, curve = 0.0, 0, []
    part = max(arguments.seconds / arguments.parts, 1e-9)
    learner(train.sample(4, device=arguments.device))  # the checks of a first call
    while seconds < arguments.seconds:
        optimizer.param_groups[0]["lr"] = 3e-3 * (0.5 + 0.5 * math.cos(math.pi * seconds / arguments.seconds))
        start = time.process_time()
        fit(learner, train, optimizer, arguments.every, meta_batch_size=4, progress=False)
        seconds += time.process_time() - start
        iterations += arguments.every
        if math.floor(seconds / part) > len(curve):
            curve.append((round(seconds), iterations, accuracy(learner, tasks["val"], 200).mean))
            print(f"{method}: {seconds:5.0f} s, {iterations} iterations, {100 * curve[-1][2]:.1f} %", flush=True)
    test = accuracy(learner, tasks["test"], arguments.tasks)
    print(f"{method}: {seconds:.0f} s, {iterations} iterations, test {100 * test.mean:.2f} +- {100 * test.ci95:.2f} %")
    return {"seconds": seconds, "iterations": iterations, "curve": curve, "test": test.mean, "ci95": test.ci95}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="*", help="pattern of the methods to run, such as '*MAML*'")
    parser.add_argument("--seconds", type=float, default=900, help="of CPU time to train for (%(default)s)")
    parser.add_argument("--parts", type=int, default=10, help="validations (%(default)s)")
    parser.add_argument("--every", type=int, default=20, help="iterations between looks at the clock (%(default)s)")
    parser.add_argument("--tasks", type=int, default=600, help="test tasks (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/omniglot"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "METALEARN_DATA" not in os.environ:
        parser.error("METALEARN_DATA must be set to a folder that has omniglot.npz")
    path = Path(os.environ["METALEARN_DATA"]) / "omniglot.npz"
    splits = {split: data.ClassImages.from_npz(path, split=split) for split in ("train", "val", "test")}
    images = {split: classes.to(arguments.device) for split, classes in splits.items()}
    images["train"] = images["train"].rotated()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for method in METHODS:
        if fnmatch(method, arguments.methods):
            result = run(method, arguments, images)
            (arguments.out / f"{method}, seed {arguments.seed}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    keep_large_blocks()
    main()
