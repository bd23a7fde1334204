"""Six meta-gradients on one model and task distribution: `python examples/meta_gradients.py`.

Each method trains the same network on sine waves for the same number of iterations. The output is
the mean squared error on unseen tasks, after as many inner steps as in training, and the training
time.
"""

import sys
import time
from functools import partial

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, inner, models, outer

# The error's curvature is large, so iMAML's rate is stable only with clipped gradients, and its
# system with damping.
PROXIMAL = {"strength": 2.0, "solver": outer.CG(5, damping=1.0)}
METHODS = {
    "MAML": partial(outer.MAML, rule=inner.SGD(0.01), num_steps=5),
    "truncated to 1 step": partial(
        outer.MAML, rule=inner.SGD(0.01), num_steps=5, estimator=outer.Stepwise(truncate=1)
    ),
    "first-order MAML": partial(outer.FOMAML, rule=inner.SGD(0.01), num_steps=5),
    "Reptile": partial(outer.Reptile, rule=inner.SGD(0.01), num_steps=5, support_batches=5),
    "iMAML": partial(
        outer.IMAML, rule=inner.Clipped(inner.SGD(0.02), value=10.0), num_steps=16, **PROXIMAL
    ),
    "evolution strategies": partial(
        outer.MAML,
        rule=inner.SGD(0.01),
        num_steps=5,
        estimator=outer.EvolutionStrategies(num_pairs=8, std=0.05),
    ),
}


def main(num_iterations: int = 1000) -> None:
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    for name, build in METHODS.items():
        torch.manual_seed(0)
        learner = build(models.mlp(1, [40, 40], 1), F.mse_loss)
        optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
        start = time.perf_counter()
        fit(learner, tasks, optimizer, num_iterations, meta_batch_size=25, progress=False)
        seconds = time.perf_counter() - start
        unseen = torch.Generator().manual_seed(1)
        error = evaluate(learner, tasks, num_tasks=1000, generator=unseen)["loss"]
        print(f"{name:<22} {error.mean:6.3f} +- {error.ci95:.3f} {seconds:6.0f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
