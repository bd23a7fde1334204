"""Global random numbers, which all threads share: PyTorch's, NumPy's and Python's."""

import pickle
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
