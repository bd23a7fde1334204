"""Global random numbers, which all threads share: PyTorch's, NumPy's and Python's."""

import pickle
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modes import is_captured

_TURN = RLock()


@contextmanager
def random_numbers_kept(device: torch.device | None = None) -> Iterator[None]:
    """Restore the global generators afterwards; one thread at a time."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with _TURN, torch.random.fork_rng(devices):
        of_python, of_numpy = random.getstate(), np.random.get_state()
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


class Draws:
    """What code draws from PyTorch's global generators: a context, to be drawn again later.

    Code that is compiled, captured or recorded has no generators to look at, and draws anew.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: list[Tensor] = []

    def __enter__(self) -> "Draws":
        if not _is_traced(self._device):
            self._before = _states(self._device)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before and all(map(torch.equal, self._before, _states(self._device))):
            self._before = []  # so that generators are left alone

    def again(self) -> AbstractContextManager[None]:
        """Return a context that draws the same, and leaves generators where they stand."""
        return self._replayed() if self._before else nullcontext()

    @contextmanager
    def _replayed(self) -> Iterator[None]:
        on_cpu, *on_gpu = self._before
        with _TURN, torch.random.fork_rng([self._device] if on_gpu else []):
            torch.set_rng_state(on_cpu)
            for state in on_gpu:
                torch.cuda.set_rng_state(state, self._device)
            yield


def _states(device: torch.device) -> list[Tensor]:
    """Return the states of PyTorch's generators, that of the CPU and that of a GPU."""
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def _is_traced(device: torch.device) -> bool:
    if torch.compiler.is_compiling() or is_captured():
        return True
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def generator_states(device: torch.device) -> tuple[bytes, bytes]:
    """Return bytes that change with draws from PyTorch's generators, and from the others."""
    of_torch = pickle.dumps([state.tolist() for state in _states(device)])
    return of_torch, pickle.dumps((np.random.get_state(), random.getstate()))


def seed_global_generators(seed: int) -> torch.Generator:
    """Seed the global generators, and return PyTorch's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    return torch.default_generator.manual_seed(seed)


def random_state(generator: torch.Generator | None = None) -> dict[str, Any]:
    """Return the states of the generator and of all global ones, as tensors and plain values."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
    }
    return state if generator is None else {**state, "generator": generator.get_state()}


def load_random_state(state: dict[str, Any], generator: torch.Generator | None = None) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if generator is not None:
        generator.set_state(state["generator"])


def generators_of(batches: Any) -> list[torch.Generator]:
    """Return an iterable's own generators, which a `DataLoader` and its samplers may have."""
    owners: list[Any] = []
    for owner in (batches, getattr(batches, "batch_sampler", None)):
        owners += [owner, getattr(owner, "sampler", None)]
    owned = [getattr(owner, "generator", None) for owner in owners]
    return list(dict.fromkeys(each for each in owned if isinstance(each, torch.Generator)))


def load_generators(batches: Any, states: list[Tensor]) -> None:
    """Set an iterable's own generators to states of them; raise unless there are as many."""
    generators = generators_of(batches)
    if len(generators) != len(states):
        condition = f"have {len(states)} generators of their own, as those of the state"
        fix = "Give the DataLoader a generator, or none, as it had when the state was saved."
        raise invalid("batches", condition, len(generators), fix)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
