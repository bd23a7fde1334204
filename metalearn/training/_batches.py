"""Endless batches of episodes whose position can be saved and restored."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from metalearn._checks import invalid, mistyped
from metalearn._random import generators_of, load_generators, load_random_state, random_state
from metalearn._streams import Stateful, as_iterable
from metalearn.data import Shard, TaskDistribution
from metalearn.data._collate import explained
from metalearn.outer._checks._episodes import check_episodes
from metalearn.training._processes import Processes
from metalearn.types import Episode


class Batches:
    """An iterator over a task distribution, or over an iterable that restarts at its end.

    Its state is the position in the iterable: the states of the random number generators at the
    start of the pass, and the number of batches taken since; of one that is `Stateful`, such as
    `data.windows`, its own. A distribution has no state besides the generators'.
    """

    def __init__(
        self,
        batches: TaskDistribution | Iterable[Episode],
        meta_batch_size: int | None,
        generator: torch.Generator | None,
        device: torch.device,
        processes: Processes,
    ) -> None:
        if isinstance(batches, TaskDistribution):
            count = _per_process(meta_batch_size, processes)
            if processes.count > 1:
                batches = Shard(batches, processes.count, processes.rank)
            batches = _Drawn(batches, count, generator, device)
        self._batches = as_iterable("batches", batches)
        self._size = None if isinstance(batches, _Drawn) else meta_batch_size
        self._generator, self._device = generator, device
        self._pass: Iterator[Episode] = iter(())
        self._started: dict[str, Any] = {}
        self._taken = 0

    def __next__(self) -> Episode:
        batch = next(self._pass, None)
        if batch is None:
            own = [generator.get_state() for generator in generators_of(self._batches)]
            self._start({**random_state(self._generator), "own": own})
            batch = next(self._pass, None)
        if batch is None:
            fix = "Pass a list or a DataLoader, which can be started anew, or lower num_iterations."
            raise invalid("batches", "last for all iterations", "an iterator at its end", fix)
        self._taken += 1
        count = check_episodes(batch)
        if self._size not in (None, count):
            fix = "Leave it out for an iterable, whose batches have their size."
            raise invalid("meta_batch_size", f"be the {count} tasks of a batch", self._size, fix)
        return batch.to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the iterable."""
        if isinstance(self._batches, _Drawn):
            return {}
        if isinstance(self._batches, Stateful):
            return {"own": self._batches.state_dict()}
        return {"started": self._started, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a position by taking the same batches; the caller restores the generators."""
        if isinstance(self._batches, Stateful) != ("own" in state):
            got, fix = type(self._batches).__name__, "Pass what the checkpoint was written with."
            raise invalid("batches", "be of the kind that the checkpoint has", got, fix)
        if isinstance(self._batches, Stateful):
            self._batches.load_state_dict(state["own"])
        elif state.get("taken"):
            started = state["started"]
            load_random_state(started, self._generator)
            load_generators(self._batches, started["own"])
            self._start(started)
            self._taken = sum(1 for _ in itertools.islice(self._pass, state["taken"]))

    def _start(self, started: dict[str, Any]) -> None:
        self._started, self._taken = started, 0
        self._pass = explained(self._batches)


@dataclass(frozen=True)
class _Drawn:
    """Batches that are drawn on demand and depend only on the generator."""

    tasks: TaskDistribution
    size: int
    generator: torch.Generator | None
    device: torch.device

    def __iter__(self) -> Iterator[Episode]:
        while True:
            yield self.tasks.sample(self.size, generator=self.generator, device=self.device)


def _per_process(meta_batch_size: int | None, processes: Processes) -> int:
    if meta_batch_size is None:
        fix = "Write meta_batch_size=4, say."
        raise mistyped("meta_batch_size", "be given for a task distribution", None, fix)
    if meta_batch_size % processes.count:
        # with unequal shares, the mean over processes would not be the mean over tasks
        fix = f"Write meta_batch_size={processes.count * -(-meta_batch_size // processes.count)}."
        condition = f"be a multiple of the {processes.count} processes"
        raise invalid("meta_batch_size", condition, meta_batch_size, fix)
    return meta_batch_size // processes.count
