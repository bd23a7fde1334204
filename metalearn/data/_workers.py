"""Batches of tasks that worker processes draw ahead."""

import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from metalearn.types import Episode

if TYPE_CHECKING:
    from metalearn.data._episodes import TaskDistribution

LARGEST_SEED = 2**63 - 1


def worker_batches(
    tasks: "TaskDistribution",
    meta_batch_size: int,
    num_batches: int | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    num_workers: int,
) -> Iterator[Episode]:
    """Iterate over batches that workers draw; arguments are those of `TaskDistribution.batches`."""
    home = None if generator is None else generator.device
    first = int(torch.randint(LARGEST_SEED, (), generator=generator, device=home))
    seeds = torch.Generator().manual_seed(first)
    batches = DataLoader(
        _Batches(tasks, meta_batch_size),
        batch_size=None,
        sampler=_Seeds(seeds, num_batches),
        num_workers=num_workers,
        collate_fn=_unchanged,
        generator=seeds,
        # Not the default from Python 3.14 on, which would copy images into shared memory.
        multiprocessing_context="fork" if sys.platform == "linux" else None,
    )
    for episodes in batches:
        yield episodes if device is None else episodes.to(device)


@dataclass(frozen=True)
class _Batches(Dataset[Episode]):
    """Batches of tasks by their seeds."""

    tasks: "TaskDistribution"
    meta_batch_size: int

    def __getitem__(self, seed: int) -> Episode:
        # The worker's global generators, so that a transform that draws from them gives the same images too.
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return self.tasks.sample(self.meta_batch_size, generator=torch.manual_seed(seed))


@dataclass(frozen=True)
class _Seeds:
    """The seeds of batches, drawn when they are needed."""

    generator: torch.Generator
    num_batches: int | None

    def __iter__(self) -> Iterator[int]:
        for _ in itertools.count() if self.num_batches is None else range(self.num_batches):
            yield int(torch.randint(LARGEST_SEED, (), generator=self.generator))


def _unchanged(episodes: Any) -> Any:
    return episodes
