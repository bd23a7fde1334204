"""Checkpoints of `fit`: one file, replaced atomically, from which a run resumes."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from metalearn._checks import check_count, check_path, invalid
from metalearn._described import described
from metalearn._files import check_writable, whole_file
from metalearn._random import load_random_state, random_state
from metalearn._sharded import load_whole_state, whole_state
from metalearn.evaluation import Learner
from metalearn.outer import Mixture, Replicas
from metalearn.outer._signature import difference, signature
from metalearn.outer._wrapper import unwrapped
from metalearn.training._batches import Batches
from metalearn.training._history import History
from metalearn.training._logs import Progress
from metalearn.training._processes import Processes

FORMAT = "metalearn checkpoint 2"
"""The entry that identifies a checkpoint of `fit`."""
ANEW = "Pass another folder, or delete the file to start anew."
HISTORY = ("loss", "num_diverged", "scores", "best_states", "seconds")


@dataclass
class Run:
    """The state of a run of `fit` and its sources of randomness.

    Attributes:
        learner: The learner without wrappers.
        optimizer: Its optimizer.
        scheduler: The optimizer's scheduler, if any.
        batches: Source of the episodes.
        generator: Source of the tasks' randomness; the global one if None.
        processes: The processes that train the learner together.
        history: The history so far.
        num_validation_steps: Number of adaptation steps in a validation; None for as many as in
            training.
        iteration: Number of meta-steps taken.
        is_over: Whether a callback has ended the run.
        kind: Settings at the start that a run must share to resume this one.
    """

    learner: Learner
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau | None
    batches: Batches
    generator: torch.Generator | None
    processes: Processes
    history: History
    num_validation_steps: int | None = None
    iteration: int = 0
    is_over: bool = False
    kind: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.kind = self._kind()

    def progress(self) -> Progress:
        """Return the callbacks' argument."""
        return Progress(self.iteration, self.history, self.learner, self.processes)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values; all processes must call this together."""
        self.history.read(self.processes)
        return {
            "format": FORMAT,
            "of": self.kind,
            "iteration": self.iteration,
            "is_over": self.is_over,
            "learner": whole_state(self.learner),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "history": {name: getattr(self.history, name) for name in HISTORY},
            # each process has its own inner problems
            "carry": self.processes.all(self.learner.carry.state_dict()),
            "batches": self.processes.all(self.batches.state_dict()),
            "random": self.processes.all(random_state(self.generator)),
        }

    def check(self, state: dict[str, Any], file: Path, num_iterations: int) -> None:
        """Raise if a state has another kind or number of processes, or more iterations."""
        if (found := difference(self.kind, state["of"])) is not None:
            what, ours, theirs = found
            got = f"{theirs} where this run has {ours}"
            raise invalid(f"{what} in {file}", "be this run's", got, ANEW)
        if state["iteration"] > num_iterations:
            condition = "be at least what the checkpoint has"
            fix = f"Write num_iterations={state['iteration']}, or more. {ANEW}"
            raise invalid("num_iterations", condition, num_iterations, fix)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a run of the same kind."""
        load_whole_state(self.learner, state["learner"])
        self.learner.carry.load_state_dict(state["carry"][self.processes.rank])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.iteration, self.is_over = state["iteration"], state["is_over"]
        self.batches.load_state_dict(state["batches"][self.processes.rank])
        load_random_state(state["random"][self.processes.rank], self.generator)

    def _kind(self) -> dict[str, Any]:
        groups = self.optimizer.param_groups
        return {
            **_signature(self.learner),
            # otherwise scores would not be comparable
            "number of steps in a validation": self.num_validation_steps,
            "optimizer": type(self.optimizer).__name__,
            "sizes of parameter groups": [len(group["params"]) for group in groups],
            "scheduler": type(self.scheduler).__name__,
            "generator": "none" if self.generator is None else str(self.generator.device),
            "number of processes": self.processes.count,
        }


def _signature(learner: Learner) -> dict[str, Any]:
    """Return what makes a learner as another process would describe it."""
    if isinstance(learner, Mixture):
        each = {index: _signature(one) for index, one in enumerate(learner)}
        return {f"{what} of {index}": its[what] for index, its in each.items() for what in its}
    one = learner.learner if isinstance(learner, Replicas) else learner
    return {
        **{what: _text(value) for what, value in signature(one).items()},
        # without its wrappers: a resumed run may start to skip divergence
        "estimator": described(unwrapped(one.estimator)),
    }


def _text(value: Any) -> Any:
    """Return a part of a learner's signature as another process would describe it."""
    if isinstance(value, str):
        return value
    return list(map(_text, value)) if isinstance(value, list) else described(value)


class Checkpoints:
    """A run's checkpoint file, written regularly.

    Args:
        folder: Folder of the file, `checkpoint.pt`; None for no checkpoints.
        every: Number of iterations between checkpoints, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `every` is below 1, or the path is invalid.
    """

    def __init__(self, folder: str | Path | None, every: int) -> None:
        check_count("checkpoint_every", every, fix="Write checkpoint_every=1000, say.")
        if folder is not None:
            check_path("checkpoint_dir", folder)
        self.file = None if folder is None else Path(folder) / "checkpoint.pt"
        self._every, self._is_proven = every, False

    def resume(self, run: Run, num_iterations: int) -> None:
        """Restore a run from its file, if there is one.

        Raises:
            ValueError: If the file is damaged, another run's, further than `num_iterations`, or
                missing for some processes, or the folder is not writable.
        """
        found = run.processes.all(self.file is not None and self.file.exists())
        if len(set(found)) > 1:  # raised in all processes, so that none waits for another
            missing = [rank for rank, is_there in enumerate(found) if not is_there]
            got, fix = f"none for processes {missing}", "Pass a folder that all processes share."
            raise invalid(f"checkpoint {self.file}", "be there for all processes", got, fix)
        if self.file is None:
            return
        if found[0]:
            state = read(self.file)
            run.check(state, self.file, num_iterations)
            run.load_state_dict(state)
        check_writable("checkpoint_dir", self.file.parent)

    def save(self, run: Run, is_last: bool) -> None:
        """Write the file if it is due."""
        if self.file is None or not (is_last or run.iteration % self._every == 0):
            return
        state = run.state_dict()
        if run.processes.rank == 0:
            with whole_file(self.file) as stream:
                torch.save(state, stream)
            # Find out at once, not after a week, that an optimizer's state cannot be read.
            if not self._is_proven:
                read(self.file)
        self._is_proven = True


def read(file: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing code in it.

    Raises:
        ValueError: If the file is damaged or not a checkpoint.
    """
    what = f"checkpoint {file}"
    try:
        with zipfile.ZipFile(file) as archive:
            # checks every record's CRC-32, which torch.load ignores
            damaged = archive.testzip()
        state = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged files raise errors of many types
        raise invalid(what, "be whole", f"{type(error).__name__}: {error}", ANEW) from error
    if damaged:
        raise invalid(what, "be whole", f"one whose record {damaged} is damaged", ANEW)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise invalid(f"file {file}", "be a checkpoint of fit", "another file", ANEW)
    return state
