"""Callbacks of `fit`: what they receive, and two that write logs."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metalearn._checks import check_count, check_path, invalid
from metalearn._files import whole_file
from metalearn.evaluation import Learner
from metalearn.training._history import History
from metalearn.training._processes import Processes


@dataclass(frozen=True)
class Progress:
    """The argument of a callback of `fit`, after every iteration in every process.

    Attributes:
        iteration: Number of iterations so far, from 1.
        history: The history; its `recent_loss(100)` synchronises with a GPU.
        learner: The learner, whose `diagnostics` are those of this iteration's tasks; they are
            empty if a run that had ended is called again.
        processes: The processes that train it; only `processes.rank == 0` should write files.
    """

    iteration: int
    history: History
    learner: Learner
    processes: Processes

    def row(self, every: int) -> dict[str, Any] | None:
        """Return the numbers to log every `every` iterations and at new scores, otherwise None.

        The loss is the mean of the finite among the last `every` losses; diverged tasks are counted
        over the same iterations in all processes.
        """
        score = self.history.scores.get(self.iteration)
        if self.iteration % every and score is None:
            return None
        self.history.read(self.processes)
        num_diverged = int(self.history.num_diverged[-every:].sum())
        row = {"loss": self.history.recent_loss(every), "num_diverged": num_diverged}
        return row if score is None else {**row, "score": torch.tensor(score).mean().item()}


class CSVLog:
    """A callback of `fit` that logs iteration, loss, diverged tasks and validation score to a CSV.

    The loss is the mean of the finite losses of the last `every` iterations, over which diverged
    tasks are counted. A run resumed from a checkpoint continues the table from there; a new run
    replaces it.

    Args:
        path: The file; its folder is created if needed.
        every: Number of iterations between rows, at least 1; every validation has a row too.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `every` is below 1; at the first iteration, if the file is another table.
    """

    COLUMNS = ("iteration", "loss", "num_diverged", "score")

    def __init__(self, path: str | Path, every: int = 100) -> None:
        check_count("every", every, fix="Write CSVLog(path, every=100), say.")
        check_path("path", path)
        self._path, self._every = Path(path), every
        self._history: History | None = None

    def __call__(self, progress: Progress) -> None:
        """Write a row if one is due."""
        row = progress.row(self._every)
        if progress.processes.rank:
            return
        if progress.history is not self._history:  # a first call, or another run
            self._start(progress.iteration)
            self._history = progress.history
        if row is not None:
            with self._path.open("a", newline="") as stream:
                writer = csv.DictWriter(stream, self.COLUMNS)
                writer.writerow({"iteration": progress.iteration, **row})

    def _start(self, iteration: int) -> None:
        """Keep the rows of an older table before this iteration."""
        text = self._path.read_text() if self._path.exists() else ""
        # without a line that a killed run left incomplete
        old = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        if text and old.fieldnames != list(self.COLUMNS):
            condition = f"have columns {list(self.COLUMNS)}"
            got = f"columns {old.fieldnames} in {self._path}"
            raise invalid("CSVLog's file", condition, got, "Pass another path.")
        kept = [row for row in old if int(row["iteration"]) < iteration]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        with whole_file(self._path) as stream:
            stream.write(table.getvalue().encode())


class TensorBoardLog:
    """A callback of `fit` that logs loss, diverged tasks and validation score to TensorBoard.

    Args:
        folder: Where the logs go.
        every: Number of iterations between points, at least 1; every validation has one too.

    Raises:
        ImportError: At the first iteration, if the package tensorboard is missing.
        TypeError: If an argument has the wrong type.
        ValueError: If `every` is below 1.
    """

    def __init__(self, folder: str | Path, every: int = 100) -> None:
        check_count("every", every, fix="Write TensorBoardLog(folder, every=100), say.")
        check_path("folder", folder)
        self._folder, self._every = folder, every
        self._writer: Any = None
        self._history: History | None = None

    def __call__(self, progress: Progress) -> None:
        """Write points if they are due."""
        row = progress.row(self._every)
        if row is None or progress.processes.rank:
            return
        if progress.history is not self._history:  # a first call, or another run
            from torch.utils.tensorboard import SummaryWriter

            # drops a killed run's points after its last checkpoint
            self._writer = SummaryWriter(str(self._folder), purge_step=progress.iteration)
            self._history = progress.history
        for name, value in row.items():
            self._writer.add_scalar(name, value, progress.iteration)
        self._writer.flush()
