"""Windows of training runs: episodes whose support sets have one batch for every step."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, overload

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_generator, check_kind, invalid, mistyped
from metalearn._fields import Check, Count
from metalearn._random import generators_of
from metalearn._tree import tree_leaves, tree_map
from metalearn.data._around import Around
from metalearn.data._episodes import TaskDistribution
from metalearn.data._epochs import Epochs
from metalearn.types import Batch, Episode

KIND = "a task distribution, as the source is", "data.MiniBatches(held_out, 16), say"
STEPS = "Write windows(loader, num_steps=8), say."


@overload
def windows(
    source: TaskDistribution, num_steps: int, *, query: TaskDistribution | None = None
) -> TaskDistribution: ...


@overload
def windows(
    source: Iterable[Any],
    num_steps: int,
    *,
    query: Iterable[Any] | None = None,
    num_tasks: int = 1,
    generator: torch.Generator | None = None,
) -> "Windows": ...


def windows(
    source: Any,
    num_steps: int,
    *,
    query: Any = None,
    num_tasks: int = 1,
    generator: torch.Generator | None = None,
) -> Any:
    """Return windows of a training run, for `support_batches=functional.GivenBatches()`.

    A support set is the batches of the window's steps, `[num_steps, batch_size, ...]`, and a query
    set one further batch. Of a `DataLoader`, or any iterable that can be started anew, they come
    epoch after epoch without an end, window after window and inner problem after inner problem, in
    the order of its own sampler. Of a task distribution, such as `MiniBatches`, every batch is a
    new task's support set, and the last one's query set is the window's.

    Windows of an iterable draw random numbers of their own, whatever else is drawn meanwhile.
    `state_dict` and `load_state_dict` save and restore where they are, between any two windows, as
    checkpoints of `fit` do: to the bit if the iterable draws from the global generators, or from
    the generator of a `DataLoader` or its sampler. Processes that train together need seeds of
    their own.

    Args:
        source: Iterable of batches: a `Batch`, a tuple (x, y) or (x, y, weight), or x alone; or a
            task distribution.
        num_steps: Number of steps in a window, at least 1: that of the learner.
        query: Where the query sets come from instead, another source of the same kind.
        num_tasks: Number of inner problems, at least 1, each with batches of its own. A task
            distribution is told by `sample`.
        generator: Source of the numbers, one an iterable, that seed what they draw; PyTorch's by
            default. A task distribution is given it by `sample`.

    Returns:
        Of an iterable, an endless iterator over episodes `[num_tasks, num_steps, batch_size, ...]`;
        of a task distribution another one.

    Raises:
        TypeError: If a source is of another kind, or a count no int.
        ValueError: If a count is below 1; when iterating, if an iterable ends for good, or its
            batches cannot be stacked.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> examples = TensorDataset(torch.randn(20, 3), torch.randn(20, 1))
    >>> loader = DataLoader(examples, batch_size=4, shuffle=True)
    >>> support, query = next(windows(loader, num_steps=3))
    >>> support.x.shape, query.x.shape
    (torch.Size([1, 3, 4, 3]), torch.Size([1, 4, 3]))
    """
    if isinstance(source, TaskDistribution):
        if num_tasks != 1 or generator is not None:
            fix = "Pass them to sample(num_tasks, generator=generator)."
            condition = "be left out of windows of a task distribution"
            raise invalid("num_tasks and generator", condition, "one of them", fix)
        return TaskWindows(source, num_steps, query)
    check_count("num_steps", num_steps, fix=STEPS)
    check_count("num_tasks", num_tasks, fix="Write num_tasks=4, say.")
    check_generator(generator)
    return Windows(source, num_steps, query, num_tasks, generator)


class Windows(Iterator[Episode]):
    """Endless windows of an iterable; arguments are those of `windows`, and are checked there."""

    def __init__(
        self,
        source: Iterable[Any],
        num_steps: int,
        query: Iterable[Any] | None,
        num_tasks: int,
        generator: torch.Generator | None,
    ) -> None:
        self._num_steps, self._num_tasks = num_steps, num_tasks
        sources = {"source": source} | ({} if query is None else {"query": query})
        for what, each in sources.items():
            _check_iterable(what, each)
        if set(generators_of(source)) & set(generators_of(query)):
            fix = "Give each loader a generator of its own, or none."
            what = "source and query of windows"
            raise invalid(what, "draw from different generators", "a common one", fix)
        self._epochs = {what: Epochs(each, generator) for what, each in sources.items()}

    def __next__(self) -> Episode:
        num_batches = self._num_steps if "query" in self._epochs else self._num_steps + 1
        rows = self._stacked("source", num_batches)
        if "query" not in self._epochs:
            return _window(rows, rows, self._num_steps)
        return _window(rows, self._stacked("query", 1), self._num_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return where the windows are, as tensors and plain values."""
        return {what: epochs.state_dict() for what, epochs in self._epochs.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where windows of the same sources were, by taking the epoch's batches again.

        Raises:
            ValueError: If they had other sources, or these other generators.
        """
        if not isinstance(state, dict) or state.keys() != self._epochs.keys():
            condition = f"be that of windows of {list(self._epochs)}"
            raise invalid("state of windows", condition, brief(state), "Pass windows.state_dict().")
        for what, epochs in self._epochs.items():
            epochs.load_state_dict(state[what])

    def _stacked(self, what: str, num_batches: int) -> Batch:
        """Return so many batches for every inner problem, `[num_tasks, num_batches, ...]`."""
        taken = self._epochs[what].take(self._num_tasks * num_batches)
        batches = [_as_batch(batch) for batch in taken]
        try:
            rows = tree_map(lambda *leaves: torch.stack(leaves), *batches)
        except (RuntimeError, ValueError) as error:
            fix = "Write DataLoader(..., drop_last=True), or pad examples to one shape."
            raise invalid("batches of a window", "be of one shape", error, fix) from error
        return tree_map(lambda leaf: leaf.unflatten(0, (self._num_tasks, num_batches)), rows)


@dataclass(frozen=True)
class TaskWindows(Around):
    """Windows whose batches are support sets of tasks; arguments are those of `windows`."""

    _what = "windows' {field}"

    num_steps: Annotated[Count, STEPS]
    query: Annotated[TaskDistribution | None, Check(check_kind, TaskDistribution, *KIND)] = None

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw a task for every step, and one for the query set."""

        def rows(tasks: TaskDistribution, count: int) -> Episode:
            drawn = tasks.sample(num_tasks * count, generator=generator, device=device)
            return tree_map(lambda leaf: leaf.unflatten(0, (num_tasks, count)), drawn)

        if self.query is None:
            return _window(*rows(self.tasks, self.num_steps + 1), self.num_steps)
        support, query = rows(self.tasks, self.num_steps).support, rows(self.query, 1).query
        return _window(support, query, self.num_steps)


def _window(rows: Batch, query: Batch, num_steps: int) -> Episode:
    """Return the first steps' rows as support sets, and the last row of others as query sets."""
    support = tree_map(lambda leaf: leaf[:, :num_steps], rows)
    return Episode(support, tree_map(lambda leaf: leaf[:, -1], query))


def _check_iterable(what: str, source: Any) -> None:
    others: Any = Tensor | str | Mapping | TaskDistribution | Batch | Episode
    if not isinstance(source, Iterable) or isinstance(source, others):
        condition = "be a DataLoader or an iterable of batches"
        fix = "Pass DataLoader(examples, batch_size=16, shuffle=True), say."
        raise mistyped(f"windows' {what}", condition, brief(source), fix)


def _as_batch(item: Any) -> Batch:
    """Return a batch of a loader as a `Batch`."""
    fields = tuple(item) if isinstance(item, tuple | list) else (item,)
    leaves = tree_leaves(item)
    are_tensors = all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves)
    is_episode = isinstance(item, Episode)
    if is_episode or not (leaves and are_tensors and len(fields) <= len(Batch._fields)):
        condition = "be a Batch, (x, y), (x, y, weight) or x, of tensors [batch_size, ...]"
        fix = "Write Batch(x, y)."
        if is_episode:
            fix = "Pass the task distribution itself: windows(tasks, num_steps)."
        got = "an Episode" if is_episode else brief(item)
        raise mistyped("a batch of windows", condition, got, fix)
    return Batch(*fields)
