"""A schedule that begins with small steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from metalearn._fields import Check, Checked, Positive
from metalearn.inner._scheduled import check_schedule


@dataclass(frozen=True)
class WarmUp(Checked):
    """A schedule that rises linearly to 1 in a number of steps, the first at 1 / num_steps.

    Args:
        num_steps: How many steps it takes; a positive number, which need not be whole, so that it
            can be learned.
        then: The schedule afterwards, of the number of steps since; constant if None. During the
            warm-up its first value is multiplied by the rise.

    Raises:
        TypeError: If `then` is not a function.
        ValueError: If `num_steps` is not positive, or `then` is no schedule.

    >>> import torch
    >>> WarmUp(4)(torch.arange(6.0))
    tensor([0.2500, 0.5000, 0.7500, 1.0000, 1.0000, 1.0000])
    """

    num_steps: Positive
    then: Annotated[Callable[[Tensor], Tensor] | None, Check(check_schedule)] = None

    def __call__(self, step: Tensor) -> Tensor:
        """Return the factor after a number of steps, in its shape."""
        rise = ((step + 1) / self.num_steps).clamp(max=1.0)
        return rise if self.then is None else rise * self.then((step - self.num_steps).clamp(min=0))
