"""Tasks of a fixed pool."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from metalearn._fields import Count, CountFromZero
from metalearn._tree import tree_map
from metalearn.data._around import Around
from metalearn.types import Episode

FIX = "Write Pool(tasks, num_tasks=60_000, seed=0), say."


@dataclass(frozen=True)
class Pool(Around):
    """A fixed number of a distribution's tasks, which come again and again.

    Every task is drawn anew from a seed of its own, so that a pool of any size needs no memory.
    Tasks are drawn one at a time: sines take some 0.1 ms each.

    Args:
        tasks: The distribution.
        num_tasks: Number of tasks in the pool, at least 1.
        seed: Which ones, at least 0; pools of two seeds share none.

    Raises:
        TypeError: If `tasks` is not a task distribution, or a number not an int.
        ValueError: If `num_tasks` is below 1 or `seed` below 0.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, section 4.1.2 (60,000
        and 40,000 tasks to train on).

    >>> from metalearn.data import Sinusoid
    >>> pool = Pool(Sinusoid(k_shot=5, num_query=5), num_tasks=3, seed=0)
    >>> len(pool.sample(100).support.x.unique(dim=0))
    3
    """

    num_tasks: Annotated[Count, FIX]
    seed: Annotated[CountFromZero, FIX] = 0
    _seeds: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        generator = torch.Generator().manual_seed(self.seed)
        seeds = torch.randint(2**63 - 1, (self.num_tasks,), generator=generator)
        object.__setattr__(self, "_seeds", seeds)

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Choose tasks of the pool, and draw each by its seed."""
        home = "cpu" if generator is None else generator.device
        chosen = torch.randint(self.num_tasks, (num_tasks,), generator=generator, device=home)
        of_task, drawn = torch.Generator(home), []
        for seed in self._seeds[chosen.cpu()].tolist():
            of_task.manual_seed(seed)
            drawn.append(self.tasks.sample(1, generator=of_task, device=device))
        joined: Episode = tree_map(lambda *leaves: torch.cat(leaves), *drawn)
        return joined
