"""MAML on sine regression, as in Huisman et al. (2021), Table 6: `python -m benchmarks.sine --k-shot 5 --seeds 5`.

Every seed sees 70,000 training tasks once. Inner rate 0.01, 5 steps, 50 query points, Adam at 1e-3, every task's
gradient clipped at 10; the state with the best of the validations on 1,000 tasks is tested on 2,000 tasks.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, inner, models, outer

PAPER = {(5, 5): "0.39 +- 0.01", (10, 5): "0.10 +- 0.00"}
"""MSE by (k_shot, steps in training and at test), 30 runs without outliers."""


def run(k_shot: int, seed: int, episodes: int, meta_batch_size: int, compile: bool) -> dict[str, float]:
    """Train one learner and return its test errors by number of steps."""
    torch.manual_seed(seed)
    tasks = data.Sinusoid(k_shot, num_query=50)
    model = models.mlp(1, [40, 40], 1)
    estimator = outer.ClipPerTask(outer.Unrolled(), value=10.0)
    learner = outer.MAML(model, F.mse_loss, inner.SGD(lr=0.01), num_steps=5, estimator=estimator, compile=compile)
    history = fit(
        learner,
        tasks,
        torch.optim.Adam(learner.parameters(), lr=1e-3),
        episodes // meta_batch_size,
        meta_batch_size=meta_batch_size,
        validate=tasks,
        validate_every=max(2500 // meta_batch_size, 1),
        num_validation_tasks=1000,
        progress=False,
    )
    learner.load_state_dict(history.best_state)
    errors = {}
    for num_steps in (0, 1, 5, 10):
        generator = torch.Generator().manual_seed(10_000 + seed)
        evaluation = evaluate(learner, tasks, num_tasks=2000, num_steps=num_steps, generator=generator)
        errors[str(num_steps)] = evaluation["loss"].mean
    return errors | {"seconds": round(history.seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k-shot", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=70_000)
    parser.add_argument("--meta-batch-size", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    results = []
    for seed in range(arguments.seeds):
        started = time.strftime("%H:%M")
        results.append(run(arguments.k_shot, seed, arguments.episodes, arguments.meta_batch_size, arguments.compile))
        print(started, f"seed {seed}", results[-1], flush=True)
    print("steps at test | ours, mean +- 95 % CI over seeds | paper")
    for steps in ("0", "1", "5", "10"):
        values = torch.tensor([result[steps] for result in results])
        half_width = 1.96 * values.std().item() / len(values) ** 0.5
        paper = PAPER.get((arguments.k_shot, int(steps)), "")
        print(f"{steps:>13} | {values.mean().item():.4f} +- {half_width:.4f} | {paper}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"sine_{arguments.k_shot}_shot_meta_batch_{arguments.meta_batch_size}.json"
    (arguments.out / name).write_text(json.dumps({"arguments": vars(arguments), "results": results}, default=str))


if __name__ == "__main__":
    main()
