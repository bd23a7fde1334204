"""What every distribution of another distribution's tasks shares."""

from dataclasses import dataclass

import torch

from metalearn._fields import Checked
from metalearn.data._episodes import TaskDistribution, Tasks


@dataclass(frozen=True)
class Around(TaskDistribution, Checked):
    """A distribution that makes its tasks of those of another one.

    Args:
        tasks: The other distribution.
    """

    tasks: Tasks

    @property
    def source_device(self) -> torch.device | None:
        """Device of the other distribution's data."""
        return self.tasks.source_device
