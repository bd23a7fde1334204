"""What `evaluate` returns: one number per task, so that runs can be compared task by task."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from metalearn._checks import check_choice, check_path, did_you_mean, invalid, message, mistyped
from metalearn._files import whole_file
from metalearn._summary import Summaries, Summary, line

FORMAT = "metalearn evaluation 2"
"""The first entry of every file that `Evaluation.save` writes."""


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Summary]):
    """The result of `evaluate`: summaries over tasks of "loss" and every metric, by name.

    Attributes:
        summaries: The mapping.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps.
        batch_statistics: Source of batch normalisation statistics for query examples, as in
            `models.batch_statistics`: "transductive", "support", "per_step", "frozen" or "none".
        fingerprint: A checksum of the tasks' data, equal for the same tasks; None if unknown.
        task_names: The tasks' names, as `evaluate` was told; None if it was not.
    """

    summaries: dict[str, Summary]
    num_tasks: int
    num_steps: int
    batch_statistics: str
    fingerprint: int | None = None
    task_names: tuple[str, ...] | None = None

    @property
    def transductive(self) -> bool:
        """Whether the statistics of a query batch were used to predict its examples."""
        return "transductive" in self.batch_statistics

    def __getitem__(self, name: str) -> Summary:
        if name not in self.summaries:
            names = list(self.summaries)
            fix = did_you_mean(name, names)
            raise KeyError(message("name of a summary", f"be one of {names}", repr(name), fix))
        return self.summaries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)

    def __repr__(self) -> str:
        tasks = f"95 % over {self.num_tasks} tasks, {self.num_steps} steps"
        return f"{line(self.summaries)} ({tasks}, batch statistics: {self.batch_statistics})"

    def by_task(self, name: str) -> dict[str, float]:
        """Return every task's number by the task's name.

        Args:
            name: "loss" or a metric's.

        Raises:
            ValueError: If `evaluate` was told no names of tasks, or there is no such summary.
        """
        check_choice("name of a summary", name, self.summaries)
        if self.task_names is None:
            fix = "Pass evaluate(..., task_names=[...])."
            raise invalid("Evaluation's task_names", "be known", None, fix)
        return dict(zip(self.task_names, self[name].values.tolist(), strict=True))

    def compare(self, other: "Evaluation") -> Summaries:
        """Return this evaluation minus another of the same tasks, task by task, for shared metrics.

        The interval of paired differences is narrower than that of two means, since the difficulty
        of tasks cancels. A difference whose interval contains 0 may be due to chance.

        Args:
            other: The evaluation to subtract.

        Returns:
            Summaries of the differences `[num_tasks]`, float64; positive where this evaluation is
            larger.

        Raises:
            TypeError: If `other` is not an evaluation.
            ValueError: If the two are not of the same tasks.
        """
        if not isinstance(other, Evaluation):
            raise mistyped("other", "be an Evaluation", type(other).__name__, "Pass evaluate(...).")
        if self.fingerprint is None or self.fingerprint != other.fingerprint:
            got = f"fingerprints {self.fingerprint} and {other.fingerprint}"
            fix = "Pass generator=torch.Generator().manual_seed(0) to both calls of evaluate."
            raise invalid("both evaluations", "be of the same tasks", got, fix)
        pairs = {name: (self[name].values, other[name].values) for name in self if name in other}
        return Summaries({name: Summary(a.double() - b.double()) for name, (a, b) in pairs.items()})

    def save(self, path: str | Path) -> None:
        """Write this evaluation as JSON, with every task's numbers.

        An old file is replaced only when all is written.

        Args:
            path: The file; its folder is created if needed.

        Raises:
            TypeError: If `path` is not a path.
        """
        check_path("path", path)
        entries = {field.name: getattr(self, field.name) for field in fields(self)}
        entries["summaries"] = {name: summary.values.tolist() for name, summary in self.items()}
        with whole_file(Path(path)) as stream:
            stream.write((json.dumps({"format": FORMAT, **entries}) + "\n").encode())

    @staticmethod
    def load(path: str | Path) -> "Evaluation":
        """Read what `save` has written; the numbers are exact, as float64.

        Args:
            path: The file.

        Raises:
            OSError: If it cannot be read.
            TypeError: If `path` is not a path.
            ValueError: If it was not written by `save`.
        """
        check_path("path", path)
        entries = _read(Path(path))
        for name, values in entries["summaries"].items():
            entries["summaries"][name] = Summary(torch.tensor(values, dtype=torch.float64))
        if entries["task_names"] is not None:
            entries["task_names"] = tuple(entries["task_names"])
        return Evaluation(**entries)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is float for value in values)


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is str for value in values)


KINDS: dict[str, Callable[[Any], bool]] = {
    "summaries": lambda value: isinstance(value, dict) and all(map(_are_numbers, value.values())),
    "num_tasks": _is_count,
    "num_steps": _is_count,
    "batch_statistics": lambda value: isinstance(value, str),
    "fingerprint": lambda value: value is None or _is_count(value),
    "task_names": lambda value: value is None or _are_strings(value),
}
"""Whether an entry of a file is what `Evaluation.save` writes."""


def _read(path: Path) -> dict[str, Any]:
    """Return the entries of a file that `Evaluation.save` has written, or raise."""
    try:
        entries = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise _not_saved(path, f"no JSON ({error})") from error
    if not isinstance(entries, dict) or entries.pop("format", None) != FORMAT:
        raise _not_saved(path, f"JSON without the entry 'format': {FORMAT!r}")
    expected = {field.name for field in fields(Evaluation)}
    if entries.keys() != expected:
        missing, unknown = sorted(expected - entries.keys()), sorted(entries.keys() - expected)
        raise _not_saved(path, f"entries {missing} missing and {unknown} unknown")
    if wrong := [name for name, fits in KINDS.items() if not fits(entries[name])]:
        raise _not_saved(path, f"entries {wrong} of another kind")
    lengths = {name: len(values) for name, values in entries["summaries"].items()}
    named = [] if entries["task_names"] is None else [len(entries["task_names"])]
    if {*lengths.values(), *named} != {entries["num_tasks"]}:
        raise _not_saved(path, f"{entries['num_tasks']} tasks with numbers of {lengths}")
    return entries


def _not_saved(path: Path, got: str) -> ValueError:
    return invalid(str(path), "be a file of Evaluation.save", got, "Write evaluation.save(path).")
