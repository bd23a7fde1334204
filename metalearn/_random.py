"""Global random numbers, which all threads share: PyTorch's, NumPy's and Python's."""

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch

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


def generator_states(device: torch.device) -> bytes:
    """Return bytes that change with every draw from a global generator."""
    states = [torch.get_rng_state().tolist()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).tolist())
    return pickle.dumps((states, np.random.get_state(), random.getstate()))
