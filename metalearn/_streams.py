"""Tasks to evaluate on, in batches with their keys."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn._tasks import num_tasks as count_tasks
from metalearn._tasks import take
from metalearn.data import TaskDistribution
from metalearn.data._collate import explained
from metalearn.functional import draw_keys
from metalearn.outer._checks._episodes import check_episodes
from metalearn.types import Episode


@runtime_checkable
class Stateful(Protocol):
    """An iterable that can say where it is, and go there."""

    def state_dict(self) -> dict[str, Any]:
        """Return the place, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go to a place."""


Tasks: TypeAlias = TaskDistribution | Iterable[Episode]

TASKS_AT_ONCE = 32
"""Number of tasks adapted at once: enough to fill a CPU, few enough for the memory of image
models."""


def keyed_batches(
    episodes: Tasks, num_tasks: int, generator: torch.Generator | None, device: torch.device
) -> Iterator[tuple[Episode, Tensor]]:
    """Yield episodes in batches until `num_tasks` have come, each with its tasks' keys."""
    for batch in _batches(episodes, num_tasks, generator, device):
        yield batch, draw_keys(count_tasks(batch), generator=generator, device=device)


def _batches(
    episodes: Tasks, num_tasks: int, generator: torch.Generator | None, device: torch.device
) -> Iterator[Episode]:
    """Yield episodes in batches until `num_tasks` have come."""
    if isinstance(episodes, TaskDistribution):
        for start in range(0, num_tasks, TASKS_AT_ONCE):
            size = min(TASKS_AT_ONCE, num_tasks - start)
            yield episodes.sample(size, generator=generator, device=device)
        return
    seen = 0
    for batch in explained(as_iterable("episodes", episodes)):
        check_episodes(batch)
        batch = take(batch.to(device), slice(0, num_tasks - seen))
        yield batch
        seen += count_tasks(batch)
        if seen >= num_tasks:
            return
    fix = f"Write num_tasks={seen}." if seen else "Pass a list: an iterator can be read once."
    raise invalid("episodes", f"give {num_tasks} tasks", f"{seen}", fix)


def as_iterable(what: str, episodes: Any) -> Iterable[Episode]:
    """Return an iterable of batches of episodes, of which a single batch is one."""
    if isinstance(episodes, Episode):
        return [episodes]
    if not isinstance(episodes, Iterable) or isinstance(episodes, Tensor):
        fix = "Pass data.Sinusoid(k_shot=10, num_query=10), say."
        raise mistyped(what, "be a task distribution or an iterable", brief(episodes), fix)
    return episodes
