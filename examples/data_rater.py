"""A scorer of training data that is learned while language models train on what it weighs.

Two thirds of the training text are noise: shuffled or random characters. Four small transformers
train on it, each sequence weighted by the scorer, and start again after `HORIZON` steps; from every
window of two steps the scorer gets the gradient of their loss on clean text (Calian et al.,
"DataRater: meta-learned dataset curation", 2025). The text is the source of Python's standard
library: `python examples/data_rater.py`.
"""

import copy
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metalearn import data, fit, functional, inner, outer
from metalearn.types import Batch, Episode

LENGTH, SIZE, SYMBOLS, HORIZON = 48, 12, 128, 200


def text() -> Tensor:
    """Return the sources of the standard library as ASCII codes."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    characters = "".join(file.read_text(errors="ignore") for file in files)
    return torch.frombuffer(bytearray(characters.encode("ascii", "ignore")), dtype=torch.uint8)


@dataclass(frozen=True)
class Mixture(data.TaskDistribution):
    """Sequences of a text, each replaced by noise with some probability; clean ones as queries."""

    train: Tensor
    clean: Tensor
    noise: float = 2 / 3
    num_steps: int = 2

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        shape = (num_tasks, self.num_steps, SIZE)
        support = sequences(self.train, shape, generator)
        shuffled = support.gather(-1, torch.rand(support.shape, generator=generator).argsort(-1))
        characters = torch.randint(32, 127, support.shape, generator=generator)
        kind = torch.rand((*shape, 1), generator=generator)
        support = torch.where(kind < self.noise, shuffled, support)
        support = torch.where(kind < self.noise / 2, characters, support)
        query = sequences(self.clean, (num_tasks, SIZE), generator)
        return Episode(batch(support), batch(query))


def sequences(
    source: Tensor, shape: tuple[int, ...], generator: torch.Generator | None = None
) -> Tensor:
    starts = torch.randint(len(source) - LENGTH, shape, generator=generator)
    return source[starts[..., None] + torch.arange(LENGTH)].long()


def batch(tokens: Tensor) -> Batch:
    """Return sequences to be continued: every character is the target of those before it."""
    return Batch(tokens[..., :-1], tokens)


class Block(nn.Module):
    """Causal attention and a network, each around a shortcut."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.inside, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inside(self.norms[0](x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.movedim(-3, 0).transpose(-3, -2)
        attention = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attention.transpose(-3, -2).flatten(-2))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


class Transformer(nn.Module):
    """A causal language model of characters."""

    def __init__(self, width: int = 32, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(SYMBOLS, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(num_layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, SYMBOLS))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(x) + self.places.weight[: x.shape[-1]]))


def losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the loss of every sequence, in nats a character."""
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)


def mean_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    return losses(logits, tokens).mean()


class Rated(nn.Module):
    """The losses of sequences, weighted by how a small convolutional network rates them."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Embedding(SYMBOLS, width)
        self.features = nn.Conv1d(width, 2 * width, 3)
        self.score = nn.Linear(2 * width, 1)
        nn.init.zeros_(self.score.weight)  # all alike at first

    def rate(self, tokens: Tensor) -> Tensor:
        features = F.relu(self.features(self.tokens(tokens).transpose(1, 2)))
        return self.score(features.mean(-1)).squeeze(-1)

    def forward(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return (self.rate(tokens).softmax(0) * losses(logits, tokens)).sum()


def area_under_curve(good: Tensor, bad: Tensor) -> float:
    """Return how often something good is rated above something bad."""
    return (good[:, None] > bad[None]).double().mean().item()


def noise_like(good: Tensor) -> Tensor:
    """Return as many shuffled sequences, and as many of random characters."""
    shuffled = good.gather(-1, torch.rand(good.shape).argsort(-1))
    return torch.cat([shuffled, torch.randint(32, 127, good.shape)])


def main(num_iterations: int = 400, num_steps: int = 300, num_seeds: int = 3) -> None:
    characters = text()
    train, clean, unseen, _ = characters.tensor_split((torch.arange(6, 9) * len(characters)) // 9)
    for seed in range(num_seeds):
        torch.manual_seed(seed)
        learner = outer.MetaLearner(
            Transformer(),
            mean_loss,
            inner.AdamW(1e-2),
            num_steps=2,
            estimator=outer.Continued(outer.Unrolled(), horizon=HORIZON),
            support_criterion=Rated(),
            support_batches=functional.GivenBatches(),
            learn_init=False,
        )
        unweighted = copy.deepcopy(learner)
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
        fit(learner, Mixture(train, clean), optimizer, num_iterations, meta_batch_size=4)

        rate, good = learner.support_criterion.rate, sequences(unseen, (500,))
        with torch.no_grad():
            area = area_under_curve(rate(good), rate(noise_like(good)))
        print(f"seed {seed}: unseen text is rated above noise in {area:.1%} of all pairs")

        run = Mixture(train, clean, num_steps=num_steps).sample(1)
        held_out = batch(sequences(unseen, (1, 200)))
        for name, each in {"unweighted": unweighted, "weighted": learner}.items():
            loss = each.adapt(run.support, num_steps).loss(held_out).item()
            print(f"  trained on {name} data: {loss:.3f} nats a character of unseen text")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
