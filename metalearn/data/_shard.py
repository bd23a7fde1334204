"""A process's share of a task distribution."""

from dataclasses import dataclass
from typing import Annotated

import torch

from metalearn._checks import invalid
from metalearn._fields import Count, CountFromZero
from metalearn._tasks import take
from metalearn.data._around import Around
from metalearn.types import Episode

FIX = "Write Shard(tasks, num_shards=2, index=0), say."


@dataclass(frozen=True)
class Shard(Around):
    """Every `num_shards`-th task of a distribution, for processes with equal generators.

    `sample(n)` draws n * num_shards tasks and keeps n: together the shards are what the
    distribution itself draws, for any `num_shards`. Under `DistributedDataParallel`, `fit` shards
    distributions automatically.

    Args:
        tasks: The distribution.
        num_shards: Number of shards, at least 1, such as `torch.distributed.get_world_size()`.
        index: Which of them, from 0, such as `torch.distributed.get_rank()`.

    Raises:
        TypeError: If `tasks` is not a task distribution, or a number not an int.
        ValueError: If `num_shards` is below 1, or `index` is not from 0 to `num_shards - 1`.

    >>> from metalearn.data import Sinusoid
    >>> tasks = Sinusoid(k_shot=5, num_query=5)
    >>> def part(index):
    ...     return Shard(tasks, 2, index).sample(3, generator=torch.Generator().manual_seed(0))
    >>> parts = [part(0), part(1)]
    >>> whole = tasks.sample(6, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(parts[1].support.x, whole.support.x[1::2])
    True
    """

    num_shards: Annotated[Count, FIX]
    index: Annotated[CountFromZero, FIX]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.index >= self.num_shards:
            condition = f"be below num_shards={self.num_shards}"
            raise invalid("Shard's index", condition, self.index, FIX)

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw all shards' tasks and keep this one's."""
        count = num_tasks * self.num_shards
        episodes = self.tasks.sample(count, generator=generator, device=device)
        kept: Episode = take(episodes, slice(self.index, None, self.num_shards))
        return kept
