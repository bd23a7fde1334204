"""Tasks that are evaluated on their support sets."""

from dataclasses import dataclass

import torch

from metalearn.data._around import Around
from metalearn.types import Episode


@dataclass(frozen=True)
class SupportAsQuery(Around):
    """The tasks of another distribution with their support sets as query sets: training error.

    Args:
        tasks: The other distribution; the size of its query sets does not matter.

    Raises:
        TypeError: If `tasks` is not a task distribution.

    References:
        Franceschi et al., "A bridge between hyperparameter optimization and learning-to-learn",
        2017, appendix A ("train").

    >>> from metalearn import data
    >>> SupportAsQuery(data.Sinusoid(k_shot=5, num_query=1)).sample(3).query.x.shape
    torch.Size([3, 5, 1])
    """

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw tasks and drop their query sets."""
        support = self.tasks.sample(num_tasks, generator=generator, device=device).support
        return Episode(support, support)
