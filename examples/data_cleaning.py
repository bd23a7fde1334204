"""Hyperparameter optimisation is meta-learning with one task: weigh 500 noisily labelled examples.

Half of the labels are wrong. The weight of every training example is learned so that a classifier
trained on them by 200 steps of gradient descent does well on a clean validation set. `Stepwise`
differentiates through all 200 steps, and its memory would suffice for thousands. Needs scikit-learn
for its 1,797 images of handwritten digits: `python examples/data_cleaning.py`.
"""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

from metalearn import functional, inner, models, outer
from metalearn.types import Batch, Episode


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with a learned weight between 0 and 1 for every example."""

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_examples))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (
            torch.sigmoid(self.logits) * F.cross_entropy(output, target, reduction="none")
        ).mean()


def main(num_iterations: int = 30, num_steps: int = 200) -> None:
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(images))
    x, y = images[order].float() / 16, labels[order]
    wrong = torch.arange(500) % 2 == 1
    train_y = torch.where(wrong, torch.randint(0, 10, (500,)), y[:500])
    train, validation, test = (slice(0, 500), slice(500, 800), slice(800, None))
    # One task, with a leading axis of tasks.
    episode = Episode(
        Batch(x[None, train], train_y[None]), Batch(x[None, validation], y[None, validation])
    )

    learner = outer.MetaLearner(
        models.mlp(64, [], 10),
        F.cross_entropy,
        inner.SGD(lr=1.0),
        num_steps=num_steps,
        estimator=outer.Stepwise(),
        learn_init=False,
        support_criterion=WeightedCrossEntropy(500),
    )

    def accuracy() -> float:
        output = learner.adapt(episode.support)(x[None, test])[0]
        return 100 * functional.accuracy(output, y[test]).item()

    print(f"test accuracy, all examples alike: {accuracy():.1f} %")
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.3)
    for iteration in range(num_iterations):
        loss = learner(episode)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if iteration % 5 == 0:
            print(f"iteration {iteration}: validation loss {loss.item():.3f}")

    weights = torch.sigmoid(learner.support_criterion.logits.detach())
    changed = wrong & (train_y != y[:500])
    print(f"test accuracy, weighted: {accuracy():.1f} %")
    print(
        f"mean weight of right labels {weights[~changed].mean():.2f}, of wrong ones "
        f"{weights[changed].mean():.2f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
