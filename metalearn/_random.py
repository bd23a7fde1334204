"""PyTorch's global random numbers, which all threads share."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_TURN = RLock()


@contextmanager
def random_numbers_kept(device: torch.device | None = None) -> Iterator[None]:
    """Put the global generators back afterwards; one thread at a time, or one would put back another's draws."""
    with _TURN, torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        yield
