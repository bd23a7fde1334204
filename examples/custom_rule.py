"""A custom update rule: gradient descent along a running mean with a meta-learned decay."""

import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from metalearn import data, fit, inner, models, outer, testing


@dataclass(frozen=True)
class LearnedAverage(inner.UpdateRule):
    """Follow h = beta h + (1 - beta) g, with one learned logit of beta for every tensor."""

    lr: float

    def init_meta(self, params):
        return {"logit": {name: param.new_zeros(()) for name, param in params.items()}}

    def init_state(self, meta, params, key):
        return {name: torch.zeros_like(param) for name, param in params.items()}

    def update(self, meta, grads, state, params, loss, step):
        beta = {name: logit.sigmoid() for name, logit in meta["logit"].items()}
        mean = {
            name: beta[name] * state[name] + (1 - beta[name]) * grad for name, grad in grads.items()
        }
        return {name: -self.lr * direction for name, direction in mean.items()}, mean


def main(num_iterations: int) -> None:
    # exact under every estimator, vmap, compile, ...
    testing.check_update_rule(LearnedAverage(lr=0.1))

    tasks = data.Sinusoid(k_shot=10, num_query=10)
    rule = LearnedAverage(lr=0.02)
    learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, rule, num_steps=5)
    fit(
        learner,
        tasks,
        torch.optim.Adam(learner.parameters(), lr=3e-3),
        num_iterations,
        meta_batch_size=25,
    )
    for name, logit in learner.rule.named_parameters():
        print(f"{name:<16} beta = {logit.sigmoid().item():.3f}")


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
