"""A schedule that falls along half a cosine."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Checked, Fraction, Positive


@dataclass(frozen=True)
class Cosine(Checked):
    """A schedule that falls from 1 along half a cosine, in a number of steps, and stays there.

    Args:
        num_steps: How many steps it takes; a positive number, which need not be whole, so that it
            can be learned.
        final: The factor at the end, from 0 to 1.

    Raises:
        ValueError: If a number is out of its range.

    References:
        Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017
        (eq. 5), without restarts.

    >>> Cosine(2, final=0.5)(torch.arange(4.0))
    tensor([1.0000, 0.7500, 0.5000, 0.5000])
    """

    num_steps: Positive
    final: Fraction = 0.0

    def __call__(self, step: Tensor) -> Tensor:
        """Return the factor after a number of steps, in its shape."""
        part = (step / self.num_steps).clamp(max=1.0)
        return self.final + (1 - self.final) * (1 + torch.cos(math.pi * part)) / 2
