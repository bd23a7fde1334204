"""Peak memory of `Stepwise`, `Unrolled` and `evaluate`: `python -m benchmarks.memory`.

Conv-4 with 32 filters on 4 tasks of 5-way 5-shot random images, 15 query images per class; then the
sine network. Live bytes are counted in PyTorch's CPU allocator.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, inner, models, outer, testing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 10, 40])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results = []

    images = torch.randint(0, 256, (20, 20, 28, 28), dtype=torch.uint8)
    episodes = data.EpisodeSampler(
        data.ClassImages(images), n_way=5, k_shot=5, num_query=15
    ).sample(4)
    for num_steps in arguments.steps:
        peaks = {}
        for estimator in (outer.Unrolled(), outer.Stepwise()):
            model = models.conv4(1, 5, num_filters=32)
            options = {"num_steps": num_steps, "estimator": estimator}
            learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.01), **options)
            learner.estimate(data.EpisodeSampler(data.ClassImages(images), 5, 1, 1).sample(1))
            name = type(estimator).__name__
            peaks[name] = testing.peak_live_bytes(partial(learner.estimate, episodes))
        ratio = peaks["Unrolled"] / peaks["Stepwise"]
        results.append({"steps": num_steps, "ratio": ratio} | peaks)
        megabytes = "  ".join(f"{name} {peak / 1e6:8.1f} MB" for name, peak in peaks.items())
        print(f"Conv-4, {num_steps:3} steps  {megabytes}  {ratio:5.1f}x", flush=True)

    tasks = data.Sinusoid(k_shot=10, num_query=10)
    learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, inner.SGD(0.01), num_steps=5)
    for num_tasks in (100, 10_000):
        peak = testing.peak_live_bytes(partial(evaluate, learner, tasks, num_tasks=num_tasks))
        results.append({"evaluate": num_tasks, "peak": peak})
        print(f"evaluate, {num_tasks:6} tasks  {peak / 1e6:.3f} MB", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "memory.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
