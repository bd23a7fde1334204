"""The log of a search: a file with one line per trial."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from metalearn._checks import check_path, invalid
from metalearn._described import described
from metalearn.search._cell import Cell

FORMAT = "metalearn search 1"
ANEW = "Pass another path, or delete the file to start anew."


@dataclass(frozen=True)
class Trial:
    """The trial of one cell.

    Attributes:
        cell: The cell.
        score: Its score; None if it failed.
        error: The error; empty if it succeeded.
        seconds: Duration.
    """

    cell: Cell
    score: float | None
    error: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """Return the trial as a line of JSON."""
        rest = {"score": self.score, "error": self.error, "seconds": round(self.seconds, 3)}
        return json.dumps({"cell": json.loads(self.cell.to_json()), **rest})

    @classmethod
    def of(cls, line: bytes) -> "Trial":
        """Return the trial of a line."""
        values = json.loads(line)
        return cls(**{**values, "cell": Cell.from_json(json.dumps(values["cell"]))})


class Log:
    """The trials of a search, each appended to a file as soon as it ends.

    Args:
        path: The file; its folder is created if needed. None keeps trials only in memory.
        score: The score function; a log of another one is an error.

    Attributes:
        trials: All trials by cell, including those of the file.

    Raises:
        TypeError: If `path` is not a path.
        ValueError: If the file is damaged before its last line, or not a log of this score.
    """

    def __init__(self, path: str | Path | None, score: Callable[[Cell], float]) -> None:
        self.trials: dict[Cell, Trial] = {}
        if path is not None:
            check_path("log", path)
        self._path = path and Path(path)
        self._head = json.dumps({"format": FORMAT, "score": name_of(score)})
        if self._path and self._path.exists() and self._path.stat().st_size:
            self._read(self._path)
        elif self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self._head)

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
        self.trials[trial.cell] = trial
        self._append(trial.line())

    def _append(self, line: str) -> None:
        if self._path:
            with self._path.open("a", encoding="utf-8") as stream:
                # closing flushes it before the search continues
                stream.write(f"{line}\n")

    def _read(self, path: Path) -> None:
        """Read a file's trials, and cut off a last line that a killed run left incomplete."""
        head, *lines = path.read_bytes().splitlines(keepends=True)
        if head != f"{self._head}\n".encode():
            got = repr(head.decode(errors="replace"))
            raise invalid(f"log {path}", f"begin with {self._head}", got, ANEW)
        whole = len(head)
        for number, line in enumerate(lines, 1):
            try:
                trial = Trial.of(line)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                if number == len(lines):
                    break
                what = f"line {number + 1} of {path}"
                raise invalid(what, "be a trial", repr(line), ANEW) from error
            if line.endswith(b"\n"):
                self.trials[trial.cell] = trial
                whole += len(line)
        os.truncate(path, whole)


def name_of(score: Any) -> str:
    """Return a function's or class's name, with the settings of a dataclass or partial."""
    inside = score.func if isinstance(score, partial) else score
    kind = inside if hasattr(inside, "__qualname__") else type(inside)
    return f"{kind.__module__}.{described(score)}"
