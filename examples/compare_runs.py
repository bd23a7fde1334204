"""Is one run better than another? A paired comparison of their errors on the same tasks."""

import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from metalearn import Evaluation, data, evaluate, fit, inner, models, outer


def main(num_iterations: int) -> None:
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    folder = Path(tempfile.mkdtemp())
    for name, rule in {"MAML": inner.SGD(lr=0.01), "Meta-SGD": inner.MetaSGD(lr=0.01)}.items():
        torch.manual_seed(0)
        learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, rule, num_steps=1)
        optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
        fit(learner, tasks, optimizer, num_iterations, meta_batch_size=10, progress=False)
        same_tasks = torch.Generator().manual_seed(1)
        evaluation = evaluate(learner, tasks, num_tasks=600, generator=same_tasks)
        print(f"{name:<20} {evaluation}")
        evaluation.save(folder / f"{name}.json")

    # Another day: the files hold every task's numbers.
    maml, meta_sgd = (Evaluation.load(folder / f"{name}.json") for name in ("MAML", "Meta-SGD"))
    print(f"{'MAML - Meta-SGD':<20} {maml.compare(meta_sgd)}")
    print(f"saved in {folder}")


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 300)
