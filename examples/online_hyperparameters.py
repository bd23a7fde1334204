"""Rates, momenta and weight decays of every layer, adapted while one model trains.

A network learns scikit-learn's digits from settings that are far too careful. Every 50 steps the
gradient of the loss on held-out digits, through these steps, changes the settings of each
tensor, and the same model trains on. It is compared with its fixed start, and with the best of ten
runs at random settings, chosen on the same held-out digits. Needs scikit-learn:
`python examples/online_hyperparameters.py`.
"""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from metalearn import data, fit, functional, inner, models, outer
from metalearn.types import Batch

WINDOW = 50  # steps between two changes of the settings


class Run:
    """One model, the settings that it starts with, and the digits of a seed."""

    def __init__(self, seed: int, lr: float, momentum: float, decay: float) -> None:
        torch.manual_seed(seed)
        images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
        parts = torch.randperm(len(images)).split([600, 600, 597])
        train, *self.judges = [TensorDataset(images[p].float() / 16, labels[p]) for p in parts]
        self.train = DataLoader(train, batch_size=50, shuffle=True)
        self.held_out = DataLoader(self.judges[0], batch_size=600)
        rule = inner.WeightDecay(inner.Momentum(lr, momentum), decay)
        rule = inner.Learned(rule, ("rule.lr", "decay"), space="log", per="tensor")
        self.learner = outer.MetaLearner(
            models.mlp(64, [64], 10),
            F.cross_entropy,
            inner.Learned(rule, "rule.rule.momentum", space="logit", per="tensor"),
            num_steps=WINDOW,
            estimator=outer.Continued(outer.Stepwise()),
            support_batches=functional.GivenBatches(),
            learn_init=False,
        )

    def fixed(self, num_steps: int) -> list[float]:
        """Train at the settings, and return the losses on held-out and on unseen digits."""
        support = next(data.windows(self.train, num_steps, query=self.held_out)).support
        return self.judged(self.learner.adapt(support, num_steps))

    def adapted(self, num_steps: int) -> list[float]:
        """Train while the settings adapt, and return the same losses."""
        windows = data.windows(self.train, num_steps=WINDOW, query=self.held_out)
        optimizer = torch.optim.Adam(self.learner.parameters(), lr=0.2, betas=(0.5, 0.99))
        fit(self.learner, windows, optimizer, num_steps // WINDOW, progress=False)
        return self.judged(self.learner.inner_models)

    def judged(self, model: outer.AdaptedModels) -> list[float]:
        batches = [Batch(*(t[None] for t in judge.tensors)) for judge in self.judges]
        return [model.loss(batch).item() for batch in batches]


def main(num_steps: int = 1000, num_runs: int = 10, num_seeds: int = 3) -> None:
    start = 0.01, 0.5, 1e-4
    for seed in range(num_seeds):
        draw = torch.rand(num_runs, 3, generator=torch.Generator().manual_seed(seed)).tolist()
        settings = [(10 ** (3 * u - 3), v, 10 ** (4 * w - 6)) for u, v, w in draw]
        best = min(Run(seed, *setting).fixed(num_steps) for setting in settings)
        print(
            f"seed {seed}: loss on unseen digits {Run(seed, *start).fixed(num_steps)[1]:.3f} at "
            f"the start's settings, {Run(seed, *start).adapted(num_steps)[1]:.3f} adapted in one "
            f"run, {best[1]:.3f} for the best of {num_runs} runs"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
