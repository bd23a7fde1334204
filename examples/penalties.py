"""A separate penalty for each of 650 parameters, learned by three hypergradients.

Where does a digit have no ink? A linear classifier is trained on 100 images of digits with L2
penalties, whose logarithms are learned on 400 others. The hypergradient comes from all inner steps
(`Stepwise`), from the last ten (`truncate`) or from the solution alone (`Implicit`). Needs
scikit-learn: `python examples/penalties.py`.
"""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.func import functional_call

from metalearn import functional, inner, models, outer
from metalearn.types import Batch, Episode, Params


class Penalised(nn.Module):
    """Cross-entropy plus an L2 penalty for every parameter."""

    def __init__(self, model: nn.Module, start: float = 1e-3) -> None:
        super().__init__()
        self.model = model
        learned = {
            name.replace(".", "_"): torch.full_like(p, start).log()
            for name, p in model.named_parameters()
        }
        self.log_penalty = nn.ParameterDict(learned)

    def forward(self, params: Params, shared: Params, episode: Episode, step: int) -> torch.Tensor:
        penalties = [
            (self.log_penalty[name.replace(".", "_")].exp() * p.square()).sum()
            for name, p in params.items()
        ]
        output = functional_call(self.model, params, (episode.support.x,))
        return F.cross_entropy(output, episode.support.y) + 0.5 * sum(penalties)


def main(num_iterations: int = 20, num_steps: int = 300) -> None:
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(images))
    x, y = images[order].float() / 16, labels[order]
    episode = Episode(
        Batch(x[None, :100], y[None, :100]), Batch(x[None, 100:500], y[None, 100:500])
    )

    estimators = {
        "all steps": outer.Stepwise(),
        "the last 10 steps": outer.Stepwise(truncate=10),
        "the solution": outer.Implicit(strength=1e-3, solver=outer.CG(20)),
    }
    for name, estimator in estimators.items():
        torch.manual_seed(0)
        model = models.mlp(64, [], 10)
        rule = inner.Momentum(lr=0.5, momentum=0.9)
        options = {"num_steps": num_steps, "learn_init": False, "estimator": estimator}
        learner = outer.MetaLearner(
            model, F.cross_entropy, rule, support_loss=Penalised(model), **options
        )
        optimizer = torch.optim.Adam(learner.parameters(), lr=0.3)

        start = time.perf_counter()
        before = judge(learner, episode, x[None, 500:], y[500:])
        for _ in range(num_iterations):
            loss = learner(episode)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = judge(learner, episode, x[None, 500:], y[500:])
        print(
            f"gradient from {name}: {before} -> {after} after {time.perf_counter() - start:.0f} s"
        )


def judge(learner: outer.MetaLearner, episode: Episode, x: torch.Tensor, y: torch.Tensor) -> str:
    adapted = learner.adapt(episode.support)
    accuracy = functional.accuracy(adapted(x)[0], y).item()
    return (
        f"validation loss {adapted.loss(episode.query).item():.3f}, test accuracy "
        f"{100 * accuracy:.1f} %"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
