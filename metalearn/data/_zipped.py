"""One task of every one of several distributions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn._fields import Check, Checked
from metalearn.data._episodes import TaskDistribution
from metalearn.types import Batch, Episode

FIX = "Write data.Zipped([data.Sinusoid(5, 5), data.Polynomial(5, 5, order=2)]), say."


def _check_distributions(what: str, value: Any, fix: str = FIX) -> None:
    """Raise unless these are a sequence of at least one task distribution."""
    if not isinstance(value, Sequence):
        raise mistyped(what, "be a list of task distributions", brief(value), fix)
    if not value:
        raise invalid(what, "be at least one task distribution", "none", fix)
    for tasks in value:
        if not isinstance(tasks, TaskDistribution):
            raise mistyped(what, "be task distributions", brief(tasks), fix)


@dataclass(frozen=True)
class Zipped(TaskDistribution, Checked):
    """One task of every distribution side by side, as `zip` takes them: for `outer.Mixture`.

    Inputs, targets and weights of its episodes are tuples, with an entry for every distribution.

    Args:
        distributions: At least one task distribution; they may have shapes of their own.

    Raises:
        TypeError: If they are no list of task distributions.
        ValueError: If there are none.

    >>> from metalearn import data
    >>> episodes = Zipped([data.Sinusoid(5, 5), data.Sinusoid(10, 5)]).sample(3)
    >>> [x.shape for x in episodes.support.x]
    [torch.Size([3, 5, 1]), torch.Size([3, 10, 1])]
    """

    distributions: Annotated[Sequence[TaskDistribution], Check(_check_distributions)]

    @property
    def source_device(self) -> torch.device | None:
        """Device of the first distribution's data."""
        return self.distributions[0].source_device

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw from one distribution after the other."""
        each = [
            tasks.sample(num_tasks, generator=generator, device=device)
            for tasks in self.distributions
        ]
        supports, queries = zip(*each, strict=True)
        return Episode(Batch(*zip(*supports, strict=True)), Batch(*zip(*queries, strict=True)))
