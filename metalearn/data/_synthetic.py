"""What the synthetic task distributions share: seeded draws, noise and the split into support and
query.
"""

import torch
from torch import Tensor

from metalearn.types import Batch, Episode


def uniform(
    bounds: tuple[float, float],
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """Draw a tensor of `shape` from U[low, high), on the generator's device, and move it to
    `device`.
    """
    low, high = bounds
    unit = torch.rand(shape, generator=generator, device=_source(generator, device))
    return (low + (high - low) * unit).to(device)


def normal(
    shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device | None
) -> Tensor:
    """Draw a tensor of `shape` from N(0, 1), on the generator's device, and move it to `device`."""
    return torch.randn(shape, generator=generator, device=_source(generator, device)).to(device)


def add_noise(y: Tensor, std: float, generator: torch.Generator | None) -> Tensor:
    """Return `y` plus Gaussian noise of standard deviation `std`."""
    return y + std * normal(y.shape, generator, y.device) if std else y


def split(x: Tensor, y: Tensor, num_support: int) -> Episode:
    """Split examples `[tasks, n, ...]` into `num_support` for the support set and the rest for the
    query.
    """
    return Episode(
        support=Batch(x[:, :num_support], y[:, :num_support]),
        query=Batch(x[:, num_support:], y[:, num_support:]),
    )


def _source(generator: torch.Generator | None, device: torch.device | None) -> torch.device | None:
    return device if generator is None else generator.device
