"""Tasks that are the groups of a table: clients, patients, machines."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from metalearn._checks import (
    check_between,
    check_count,
    check_generator,
    check_positive,
    did_you_mean,
    invalid,
    mistyped,
)
from metalearn._tree import tree_map
from metalearn.data._columns import check_lengths, read_columns, read_groups
from metalearn.data._episodes import TaskDistribution
from metalearn.data._names import as_strings
from metalearn.data._table_fixes import fix_of
from metalearn.types import Batch, Episode


class Grouped(TaskDistribution):
    """The groups of a table's rows as tasks of different sizes.

    A task is a group, drawn uniformly or as `weighted` says, whose rows are split at random into
    support and query set. Where groups differ in size all sets have weights, as those of `collate`:
    smaller ones are padded to the largest that is drawn, with weights of 0, so that criterion and
    metrics take weights.

    Args:
        table: A pandas table, a Hugging Face data set, or any mapping of columns to arrays.
        by: The column that tells the groups.
        x: The columns of inputs: a name, whose values are the inputs, `[num_examples, ...]`; a list
            of names, whose numbers are the features, `[num_examples, len(x)]`; or a dict of either.
            Floating columns and features get the default dtype, single integers int64.
        y: Those of targets, likewise, but integers of any shape, and lists of them, are int64.
        support: Fraction of a group's rows in its support set, above 0 and below 1; both sets have
            at least one.

    Attributes:
        names: The groups' names, in ascending order.
        support: The fraction.

    Raises:
        TypeError: If an argument is of the wrong kind, or a column holds no numbers.
        ValueError: If a column is not there, has missing values or another number of rows, there
            are no rows, or a group has a single one.

    >>> table = {"client": ["a", "b", "b", "a", "b"], "age": [31.0, 24.0, 57.0, 42.0, 63.0],
    ...          "bought": [0, 1, 1, 1, 0]}
    >>> clients = Grouped(table, by="client", x=["age"], y="bought", support=0.5)
    >>> clients.sizes
    {'a': 2, 'b': 3}
    >>> clients.sample(4).support.x.shape[0]
    4
    """

    def __init__(self, table: Any, by: str, x: Any, y: Any, support: float = 0.5) -> None:
        check_between("Grouped's support", support, 0, 1, fix="Pass support=0.5, say.")
        if not hasattr(table, "__getitem__") or isinstance(table, str | list | tuple | Tensor):
            fix = "Pass pandas.read_csv(path), or a dict of arrays."
            raise mistyped("Grouped's table", "have columns by name", type(table), fix)
        names, groups, counts = read_groups("by", table, by)
        if single := [name for name, count in zip(names, counts, strict=True) if count < 2]:
            fix = fix_of("a single row", table, by)
            raise invalid("groups", "have at least 2 rows", f"1 row of {single}", fix)
        if not names:
            raise invalid("Grouped's table", "have rows", "none")
        columns = read_columns("x", table, x), read_columns("y", table, y)
        check_lengths(columns, len(groups))
        order = torch.from_numpy(groups).argsort(stable=True)
        self.names, self.support = tuple(names), support
        self._rows = Batch(*tree_map(lambda leaf: leaf[order], columns))
        self._counts = torch.from_numpy(counts)
        self._starts = self._counts.cumsum(0) - self._counts
        self._odds = torch.ones(len(names), dtype=torch.float64)

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.names)

    def __repr__(self) -> str:
        least, most = int(self._counts.min()), int(self._counts.max())
        return f"Grouped({len(self)} groups of {least} to {most} rows, support={self.support})"

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of every group, by name."""
        return dict(zip(self.names, self._counts.tolist(), strict=True))

    def select(self, names: str | Iterable[str]) -> Self:
        """Return the groups with these names, in this order, such as those to train on.

        Args:
            names: Some of `names`, each at most once; or a single one.

        Raises:
            TypeError: If `names` does not hold strings.
            ValueError: If a name is unknown or repeated, or there is none.
        """
        fix = "Pass select(['a', 'b'])."
        names = (names,) if isinstance(names, str) else as_strings("names", names, fix)
        if not names or len(set(names)) < len(names):
            got = "one twice" if names else "none"
            raise invalid("names", "be some groups', each at most once", got, fix)
        if unknown := [name for name in names if name not in self.names]:
            fix = did_you_mean(unknown[0], self.names) or "See names for all of them."
            raise invalid("names", f"be of the {len(self)} groups", unknown, fix)
        chosen = torch.tensor([self.names.index(name) for name in names])
        parts = self._counts[chosen], self._starts[chosen], self._odds[chosen]
        return self._with(names=tuple(names), _counts=parts[0], _starts=parts[1], _odds=parts[2])

    def weighted(self, weights: Mapping[str, float]) -> Self:
        """Return the groups with weights in the meta-loss, in proportion to which they are drawn.

        So the expected meta-loss is the mean over groups with these weights:
        `clients.weighted(clients.sizes)` counts all rows alike, and small groups less.

        Args:
            weights: A positive number by name, of every group.

        Raises:
            TypeError: If `weights` is no mapping of numbers.
            ValueError: If a group has none, or one that is not positive.
        """
        fix = "Write clients.weighted(clients.sizes), say."
        if not isinstance(weights, Mapping):
            raise mistyped("weights", "be a mapping of numbers by name", type(weights), fix)
        if weights.keys() != set(self.names):
            others = sorted(map(str, weights.keys() ^ set(self.names)))
            raise invalid("weights", "be of every group", f"others, or none, of {others}", fix)
        for name in self.names:
            check_positive(f"weight of {name!r}", weights[name], fix=fix)
        odds = torch.tensor([float(weights[name]) for name in self.names], dtype=torch.float64)
        return self._with(_odds=odds)

    def each(
        self, meta_batch_size: int = 32, *, generator: torch.Generator | None = None
    ) -> Iterator[Episode]:
        """Iterate over all groups, each once, in the order of `names`, which tell results apart.

        `evaluate(learner, clients.each(), num_tasks=len(clients),
        task_names=clients.names)`.

        Args:
            meta_batch_size: Number of groups in a batch, at least 1.
            generator: Source of the splits into support and query sets; PyTorch's by default.

        Raises:
            TypeError: If an argument is of the wrong kind.
            ValueError: If `meta_batch_size` is below 1.
        """
        check_count("meta_batch_size", meta_batch_size, fix="Write each(32), say.")
        check_generator(generator)
        groups = torch.arange(len(self)).split(meta_batch_size)
        return (self._episodes(part, generator) for part in groups)

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw groups with replacement, and split each anew."""
        odds = self._odds if generator is None else self._odds.to(generator.device)
        groups = torch.multinomial(odds, num_tasks, replacement=True, generator=generator)
        return self._episodes(groups.cpu(), generator)

    def _episodes(self, groups: Tensor, generator: torch.Generator | None) -> Episode:
        """Split groups at random into support and query sets."""
        counts, starts = self._counts[groups], self._starts[groups, None]
        home = None if generator is None else generator.device
        shape = len(groups), int(counts.max())
        order = torch.rand(shape, generator=generator, device=home).cpu()
        order = order.masked_fill(torch.arange(shape[1]) >= counts[:, None], 2).argsort(1)
        num_support = (self.support * counts).round().long().clamp(min=1).minimum(counts - 1)
        is_ragged = bool((self._counts != self._counts[0]).any())

        def part(first: Tensor, size: Tensor) -> Batch:
            place = torch.arange(int(size.max()))
            is_there = place < size[:, None]
            rows = starts + order.gather(1, first[:, None] + place.where(is_there, 0))
            weight = is_there.to(torch.get_default_dtype()) if is_ragged else ()
            return tree_map(lambda leaf: leaf[rows], self._rows)._replace(weight=weight)

        sizes = num_support, counts - num_support
        return Episode(part(torch.zeros_like(counts), sizes[0]), part(num_support, sizes[1]))

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        vars(other).update(changes)
        return other
