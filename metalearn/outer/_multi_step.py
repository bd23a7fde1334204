"""The weights of a multi-step loss."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import check_between
from metalearn._fields import Check, Checked, CountOrNone


@dataclass(frozen=True)
class MultiStep(Checked):
    """How much the query loss after each inner step counts: MAML++'s annealed weights.

    All steps count alike in the first iteration. The weights of all but the last fall linearly, by
    1 / (num_steps num_iterations) an iteration, down to floor / num_steps, and the last one takes
    what they lose. A subclass with another `weights` is another schedule.

    Args:
        num_iterations: Number of meta-iterations over which a weight would fall to zero, at least
            1; None keeps all weights alike.
        floor: Least weight of a step, as a part of its first one, above 0 and below 1.

    Raises:
        TypeError: If `num_iterations` is no int.
        ValueError: If a number is out of its range.

    References:
        Antoniou et al., "How to train your MAML", ICLR 2019, section 4.

    >>> MultiStep(num_iterations=100).weights(torch.tensor(50.0), num_steps=2)
    tensor([0.2500, 0.7500])
    """

    num_iterations: Annotated[CountOrNone, "None keeps all weights alike."] = None
    floor: Annotated[float, Check(check_between, 0, 1)] = 0.03

    def weights(self, iteration: Tensor, num_steps: int) -> Tensor:
        """Return the weight of the loss after every step, `[num_steps, ...]`.

        Args:
            iteration: Number of meta-iterations so far, `[...]`: a floating scalar, so that nothing
                recompiles as it grows, or the same for every task.
            num_steps: Number of inner steps, at least 1.
        """
        passed = (
            iteration / self.num_iterations if self.num_iterations else torch.zeros_like(iteration)
        )
        earlier = (1 - passed).clamp(min=self.floor) / num_steps
        return torch.stack([earlier] * (num_steps - 1) + [1 - (num_steps - 1) * earlier])
