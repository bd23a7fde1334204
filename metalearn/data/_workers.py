"""Batches of tasks with one seed each, the same for any number of worker processes."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from metalearn._random import random_numbers_kept, seed_global_generators
from metalearn.types import Episode

if TYPE_CHECKING:
    from metalearn.data._episodes import TaskDistribution

LARGEST_SEED = 2**63 - 1


def seeded_batches(
    tasks: "TaskDistribution",
    meta_batch_size: int,
    num_batches: int | None,
    generator: torch.Generator | None,
    device: torch.device | None,
    num_workers: int,
) -> Iterator[Episode]:
    """Iterate over batches, with the arguments of `TaskDistribution.batches`."""
    home = torch.get_default_device() if generator is None else generator.device
    first = int(torch.randint(LARGEST_SEED, (), generator=generator, device=home))
    seeds = torch.Generator().manual_seed(first)
    batches = DataLoader(
        _Batches(tasks, meta_batch_size),
        batch_size=None,
        sampler=_Seeds(seeds, num_batches),
        num_workers=num_workers,
        collate_fn=_unchanged,
        generator=seeds,
        # Linux's default from Python 3.14 on would copy images into shared memory
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
    )
    if device is None and home.type != "cpu":
        device = home  # as `sample` does
    for episodes in batches:
        yield episodes if device is None else episodes.to(device)


@dataclass(frozen=True)
class _Batches(Dataset[Episode]):
    """Batches of tasks, indexed by seed."""

    tasks: "TaskDistribution"
    meta_batch_size: int

    def __getitem__(self, seed: int) -> Episode:
        # Seeds the global generators too, for transforms that draw from them.
        with random_numbers_kept():
            generator = seed_global_generators(seed)
            return self.tasks.sample(self.meta_batch_size, generator=generator)


@dataclass(frozen=True)
class _Seeds:
    """The batches' seeds, drawn lazily."""

    generator: torch.Generator
    num_batches: int | None

    def __iter__(self) -> Iterator[int]:
        for _ in itertools.count() if self.num_batches is None else range(self.num_batches):
            yield int(torch.randint(LARGEST_SEED, (), generator=self.generator))


def _unchanged(episodes: Any) -> Any:
    return episodes
