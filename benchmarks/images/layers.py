"""Which layers adapt: Arnold et al. (2019), Figure 2.

`METALEARN_DATA=folder python -m benchmarks.images.layers` meta-trains a Conv-4 by MAML on 10-way
5-shot Omniglot with 4 inner steps. At test time each layer, a convolution with its batch
normalisation or the head, is frozen or adapts alone; and with the first three layers frozen, noise
is added to the head's initial weights. 100 test tasks, as in the paper.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarks.images.__main__ import METRICS, Run, read
from benchmarks.images._problems import PROBLEMS
from metalearn import Evaluation, analysis, data, keep_large_blocks

LAYERS = {
    f"C{index + 1}": [f"features.{3 * index}", f"features.{3 * index + 1}"] for index in range(4)
}
LAYERS["FC"] = ["head"]
STDS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)


def accuracy(evaluation: Evaluation) -> str:
    summary = evaluation["accuracy"]
    return f"{100 * summary.mean:.1f} +- {100 * summary.ci95:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images.layers", description=__doc__)
    parser.add_argument("--budget", type=float, default=10, help="minutes to train (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/layers.png"))
    parser.set_defaults(looks=3, seed=0, statistics="transductive", threads=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    problem = PROBLEMS["omniglot_10w5s"]
    method = problem.methods["CNN, 4 layers"]
    images = read(problem, arguments.device)
    tasks: dict[str, data.EpisodeSampler] = {
        split: problem.sampler(images[split]) for split in images
    }
    learner = method.build(problem.network(method, 10, arguments.statistics)).to(arguments.device)
    trained = Run(problem, method, images, arguments).train(
        learner, tasks["train"], problem.meta_batch_size
    )

    def same_tasks() -> dict:
        return {"num_tasks": 100, "metrics": METRICS, "generator": torch.Generator().manual_seed(2)}

    ablation = analysis.layer_ablation(learner, tasks["test"], LAYERS, **same_tasks())
    frozen = [pattern for layer in ("C1", "C2", "C3") for pattern in LAYERS[layer]]
    noise = analysis.head_noise(learner, tasks["test"], "head", STDS, frozen=frozen, **same_tasks())
    print(
        f"\n{trained['iterations']} iterations in {trained['seconds']} s; all adapt: "
        f"{accuracy(ablation.whole)} %"
    )
    print(f"+-: {ablation.whole['accuracy'].interval}\n")
    print(f"| | {' | '.join(LAYERS)} |\n|---|{'---|' * len(LAYERS)}")
    for row, evaluations in {
        "freezing only this": ablation.frozen,
        "adapting only this": ablation.alone,
    }.items():
        print(f"| {row} | {' | '.join(map(accuracy, evaluations.values()))} |")
    print(f"\n| noise on FC | {' | '.join(map(str, STDS))} |\n|---|{'---|' * len(STDS)}")
    print(f"| C4 and FC adapt | {' | '.join(map(accuracy, noise.evaluations.values()))} |")
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    ablation.plot(axes[0], score="accuracy")
    noise.plot(axes[1], score="accuracy")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    keep_large_blocks()
    main()
