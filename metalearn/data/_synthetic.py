"""Shared by the synthetic task distributions: seeded draws, noise, support and query sets."""

import torch
from torch import Tensor

from metalearn.types import Batch, Episode


def uniform(
    bounds: tuple[float, float],
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """Draw from U[low, high) on the generator's device and move the tensor to `device`."""
    low, high = bounds
    unit = torch.rand(shape, generator=generator, device=_source(generator, device))
    return (low + (high - low) * unit).to(device)


def normal(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device | None
) -> Tensor:
    """Draw from N(0, 1) on the generator's device and move the tensor to `device`."""
    return torch.randn(shape, generator=generator, device=_source(generator, device)).to(device)


def add_noise(y: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    """Return `y` plus Gaussian noise of standard deviation `std`."""
    return y + std * normal(y.shape, generator, y.device) if std else y


def split(x: Tensor, y: Tensor, num_support: int) -> Episode:
    """Split examples `[tasks, n, ...]` into `num_support` support examples and a query set."""
    return Episode(
        support=Batch(x[:, :num_support], y[:, :num_support]),
        query=Batch(x[:, num_support:], y[:, num_support:]),
    )


def _source(generator: torch.Generator | None, device: torch.device | None) -> torch.device | None:
    return device if generator is None else generator.device
