"""An optimizer, learned while MLPs of three shapes train, trains one of a fourth shape.

It is compared with Adam at its best of four rates, on digits that nothing was learned on. Needs
scikit-learn: `python examples/learned_optimizer.py`; about 15 minutes for three seeds on one core.
"""

import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from metalearn import data, evaluate, fit, functional, inner, models, outer
from metalearn.types import Batch, Episode

WINDOW, HORIZON = 25, 50  # steps of training in a meta-step, and in all
SHAPES, UNSEEN = [[16], [32], [16, 16]], [24, 24]
RATES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Blend(inner.UpdateRule):
    """A small network that bends Adam's direction, and scales it, for every element."""

    decays: tuple[float, ...] = (0.5, 0.9, 0.99)
    lr: float = 0.003

    def init_meta(self, params):
        like = next(iter(params.values()))
        size = 2 * len(self.decays) + 4
        first = torch.randn(size, 16).to(like) / size**0.5
        zeros = {
            "bias": like.new_zeros(16),
            "last": like.new_zeros(16, 2),
            "out": like.new_zeros(2),
        }
        return {"first": first, **zeros}

    def init_state(self, meta, params, key):
        size = len(self.decays) + 1
        averages = {name: param.new_zeros(*param.shape, size) for name, param in params.items()}
        return next(iter(params.values())).new_zeros(()), averages

    def update(self, meta, grads, state, params, loss, step):
        count, averages = state[0] + 1, {}
        decays = loss.new_tensor([*self.decays, 0.95])
        time = (count / loss.new_tensor([5.0, 50.0])).tanh()
        updates = {}
        for name, grad in grads.items():
            powers = torch.stack([grad] * len(self.decays) + [grad.square()], -1)
            averages[name] = decays * state[1][name] + (1 - decays) * powers
            unbiased = averages[name] / (1 - decays**count)
            scale = (unbiased[..., -1] + 1e-12).rsqrt()
            moments, now = unbiased[..., :-1] * scale.unsqueeze(-1), (grad * scale).clamp(-5, 5)
            size = params[name] / (params[name].square().mean() + 1e-6).sqrt()
            seen = [moments, moments.tanh(), torch.stack([now, size], -1)]
            inputs = torch.cat([*seen, time.expand(*grad.shape, 2)], -1)
            hidden = (inputs @ meta["first"] + meta["bias"]).tanh()
            log_rate, bend = (hidden @ meta["last"] + meta["out"]).unbind(-1)
            updates[name] = -self.lr * log_rate.exp() * (moments[..., 1] + bend)
        return updates, (count, averages)


class Runs(data.TaskDistribution):
    """Training runs on mini-batches of digits, judged on other digits."""

    def __init__(self, train: Batch, held_out: Batch, num_steps: int) -> None:
        self.train, self.held_out, self.num_steps = train, held_out, num_steps

    def draw(self, num_tasks, generator, device):
        def some(digits: Batch, *shape: int) -> Batch:
            chosen = torch.randint(len(digits.y), shape, generator=generator)
            return Batch(digits.x[chosen], digits.y[chosen])

        support = some(self.train, num_tasks, self.num_steps, 32)
        return Episode(support, some(self.held_out, num_tasks, 256)).to(device or "cpu")


def digits() -> list[Batch]:
    """Return digits to train on, to judge training on, and to test on."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels))
    x, y = torch.tensor(images).float()[order] / 16, torch.tensor(labels)[order]
    return [Batch(x[part], y[part]) for part in torch.arange(len(y)).split([800, 400, 597])]


def fresh(meta, support, key: Tensor) -> dict[str, Tensor]:
    """Return another initialisation for every run."""
    return {
        name: functional.normal(key, param.shape, stream) / param.shape[-1] ** 0.5
        if param.dim() > 1
        else torch.zeros_like(param)
        for stream, (name, param) in enumerate(meta.init.items())
    }


def learner_of(shape: list[int], rule: inner.UpdateRule, **options) -> outer.MetaLearner:
    options = {"num_steps": HORIZON, "learn_init": False, "start": fresh} | options
    batches = functional.GivenBatches()
    model = models.mlp(64, shape, 10)
    return outer.MetaLearner(model, F.cross_entropy, rule, support_batches=batches, **options)


def learned_on(train: Batch, held_out: Batch, num_iterations: int) -> outer.Mixture:
    rule, windows = Blend(), outer.Continued(outer.Unrolled(), horizon=HORIZON)
    mixture = outer.Mixture(
        [learner_of(shape, rule, num_steps=WINDOW, estimator=windows) for shape in SHAPES]
    )
    runs = data.Zipped([Runs(train, held_out, WINDOW)] * len(SHAPES))
    optimizer = torch.optim.Adam(mixture.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_iterations)
    options = {"meta_batch_size": 5, "scheduler": scheduler, "max_grad_norm": 1.0}
    fit(mixture, runs, optimizer, num_iterations, **options)
    return mixture


def loss_after(learner: outer.MetaLearner, train: Batch, test: Batch) -> float:
    generator = torch.Generator().manual_seed(0)  # the same runs for all
    runs = Runs(train, test, HORIZON)
    return evaluate(learner, runs, num_tasks=100, generator=generator)["loss"].mean


def main(num_iterations: int = 300, num_seeds: int = 3) -> None:
    for seed in range(num_seeds):
        torch.manual_seed(seed)
        train, held_out, test = digits()
        mixture = learned_on(train, held_out, num_iterations)
        rule, meta = mixture[0].problem.rule, mixture[0].meta.rule
        unseen = outer.Mixture([mixture[0], learner_of(UNSEEN, rule)])[1]
        learned = loss_after(unseen, train, test)
        adam = {
            rate: loss_after(learner_of(UNSEEN, inner.Adam(rate)), train, test) for rate in RATES
        }
        losses = ", ".join(f"Adam({rate}) {loss:.3f}" for rate, loss in adam.items())
        print(f"seed {seed}: {HORIZON} steps on {UNSEEN}: learned {learned:.3f}, {losses}")

    module = models.mlp(64, UNSEEN, 10)  # in a training loop of PyTorch's kind
    optimizer = inner.as_optimizer(rule, meta, module.named_parameters())
    for _ in range(HORIZON):
        chosen = torch.randint(len(train.y), (32,))
        optimizer.zero_grad()
        F.cross_entropy(module(train.x[chosen]), train.y[chosen]).backward()
        optimizer.step()
    loss = F.cross_entropy(module(test.x), test.y).item()
    print(f"as an ordinary optimizer: {loss:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
