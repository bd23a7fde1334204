"""Batches of an iterable, epoch after epoch, whose place can be saved and restored."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from metalearn._checks import invalid
from metalearn._random import (
    generators_of,
    load_generators,
    load_random_state,
    random_numbers_kept,
    random_state,
    seed_global_generators,
)
from metalearn.data._workers import LARGEST_SEED


class Epochs:
    """Endless batches of an iterable that is started anew at its end.

    What it draws from the global generators, such as the order of a shuffling `DataLoader`, are
    random numbers of its own: whatever else is drawn between two batches changes nothing, and is
    not changed. Its place is the random states when the epoch began, and how many batches it has
    given since. The same batches come again if the iterable draws from the global generators, or
    from that of a `DataLoader` or its sampler.

    Args:
        batches: The iterable.
        generator: Source of the one number that seeds them; PyTorch's if None.
    """

    def __init__(self, batches: Iterable[Any], generator: torch.Generator | None) -> None:
        home = None if generator is None else generator.device
        seed = int(torch.randint(LARGEST_SEED, (), generator=generator, device=home))
        self._batches = batches
        self._pass: Iterator[Any] = iter(())
        self._taken = 0
        with random_numbers_kept():
            seed_global_generators(seed)
            self._random = _state_of_cpu()
        self._started = self._now()

    def take(self, count: int) -> list[Any]:
        """Return so many batches."""
        with self._own_numbers():
            return [self._next() for _ in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """Return the place, as tensors and plain values."""
        return {"started": self._started, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a place by taking the epoch's batches again.

        Raises:
            ValueError: If the iterable had another number of generators.
        """
        load_generators(self._batches, state["started"]["own"])
        self._started, self._random, self._taken = state["started"], state["started"]["random"], 0
        self._pass = iter(())
        self.take(state["taken"])

    def _next(self) -> Any:
        batch = next(self._pass, self)
        if batch is self:
            self._random = _state_of_cpu()
            self._started, self._taken = self._now(), 0
            self._pass = iter(self._batches)
            batch = next(self._pass, self)
        if batch is self:
            fix = "Pass a list or a DataLoader, which can be started anew."
            got = "an iterator at its end"
            raise invalid("batches of windows", "come anew in every epoch", got, fix)
        self._taken += 1
        return batch

    def _now(self) -> dict[str, Any]:
        own = [generator.get_state() for generator in generators_of(self._batches)]
        return {"random": self._random, "own": own}

    @contextmanager
    def _own_numbers(self) -> Iterator[None]:
        with random_numbers_kept():
            load_random_state(self._random)
            yield
            self._random = _state_of_cpu()


def _state_of_cpu() -> dict[str, Any]:
    return {**random_state(), "cuda": []}
