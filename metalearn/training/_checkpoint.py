"""What a run of `fit` needs to go on, in one file that is whole at any moment."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from metalearn._checks import check_count, check_path, invalid
from metalearn._described import described
from metalearn._files import check_writable, whole_file
from metalearn.outer import MetaLearner, Replicas
from metalearn.outer._per_task import unwrapped
from metalearn.outer._signature import difference, signature
from metalearn.training._batches import Batches, load_random_state, random_state
from metalearn.training._history import History
from metalearn.training._processes import Processes

FORMAT = "metalearn checkpoint 1"
"""The entry by which every file of ours is known."""
ANEW = "Pass another folder, or delete the file to start anew."
HISTORY = ("loss", "num_diverged", "scores", "best_states", "seconds")


@dataclass
class Run:
    """A run of `fit`: what it changes, and what it draws from.

    Attributes:
        learner: The learner inside of any wrapper.
        optimizer: Its optimizer.
        scheduler: The optimizer's scheduler, if there is one.
        batches: Where the episodes come from.
        generator: Source of the tasks' randomness; the global one if None.
        processes: Those that train the learner together.
        history: What has happened.
        num_validation_steps: Number of adaptation steps in a validation; None for as many as in
            training.
        iteration: Number of meta-steps taken.
        is_over: Whether a callback has ended it.
        kind: What another run must have in common with it to go on where it was, as it is when it
            starts.
    """

    learner: MetaLearner | Replicas
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

    @property
    def one_learner(self) -> MetaLearner:
        """The learner, or the one inside of replicas."""
        return self.learner.learner if isinstance(self.learner, Replicas) else self.learner

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values. Every process calls this, and gets the
        same.
        """
        self.history.read(self.processes)
        return {
            "format": FORMAT,
            "of": self.kind,
            "iteration": self.iteration,
            "is_over": self.is_over,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "history": {name: getattr(self.history, name) for name in HISTORY},
            # of which each process has its own inner problems
            "carry": self.processes.all(self.one_learner.carry.state_dict()),
            "batches": self.processes.all(self.batches.state_dict()),
            "random": self.processes.all(random_state(self.generator)),
        }

    def check(self, state: dict[str, Any], file: Path, num_iterations: int) -> None:
        """Raise if the state is that of another kind of run, of another number of processes, or
        further than asked.
        """
        if (found := difference(self.kind, state["of"])) is not None:
            what, ours, theirs = found
            got = f"{theirs} where this run has {ours}"
            raise invalid(f"{what} in {file}", "be this run's", got, ANEW)
        if state["iteration"] > num_iterations:
            fix = f"Write num_iterations={state['iteration']}, or more. {ANEW}"
            raise invalid(
                "num_iterations", "be at least what the checkpoint has", num_iterations, fix
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where a run of the same kind was."""
        self.learner.load_state_dict(state["learner"])
        self.one_learner.carry.load_state_dict(state["carry"][self.processes.rank])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, value in state["history"].items():
            setattr(self.history, name, value)
        self.iteration, self.is_over = state["iteration"], state.get("is_over", False)
        self.batches.load_state_dict(state["batches"][self.processes.rank])
        load_random_state(state["random"][self.processes.rank], self.generator)

    def _kind(self) -> dict[str, Any]:
        learner = self.one_learner
        of_learner = {
            what: list(map(described, value)) if isinstance(value, list) else described(value)
            for what, value in signature(learner).items()
        }
        return {
            **of_learner,
            # Without what wraps it: divergence may be skipped from now on.
            "estimator": described(unwrapped(learner.estimator)),
            # or its scores were not comparable
            "number of steps in a validation": self.num_validation_steps,
            "optimizer": type(self.optimizer).__name__,
            "sizes of parameter groups": [
                len(group["params"]) for group in self.optimizer.param_groups
            ],
            "scheduler": type(self.scheduler).__name__,
            "generator": "none" if self.generator is None else str(self.generator.device),
            "number of processes": self.processes.count,
        }


class Checkpoints:
    """The file of a run, written every so many iterations.

    Args:
        folder: Where it is, `checkpoint.pt`; None for none.
        every: Number of iterations between two of them, at least 1.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `every` is below 1, or no file can have such a path.
    """

    def __init__(self, folder: str | Path | None, every: int) -> None:
        check_count("checkpoint_every", every, fix="Write checkpoint_every=1000, say.")
        if folder is not None:
            check_path("checkpoint_dir", folder)
        self.file = None if folder is None else Path(folder) / "checkpoint.pt"
        self._every, self._is_proven = every, False

    def resume(self, run: Run, num_iterations: int) -> None:
        """Bring a run to where its file is, if there is one.

        Raises:
            ValueError: If the file is damaged, another run's, further than `num_iterations`, or not
                everybody's, or none can be written there.
        """
        found = run.processes.all(self.file is not None and self.file.exists())
        if len(set(found)) > 1:  # raised in all of them, so that none waits for another
            missing = (
                "none for processes "
                f"{[rank for rank, is_there in enumerate(found) if not is_there]}"
            )
            fix = "Pass a folder that all processes share."
            raise invalid(f"checkpoint {self.file}", "be there for all processes", missing, fix)
        if self.file is None:
            return
        if found[0]:
            state = read(self.file)
            run.check(state, self.file, num_iterations)
            run.load_state_dict(state)
        check_writable("checkpoint_dir", self.file.parent)

    def save(self, run: Run, is_last: bool) -> None:
        """Write the file if its time has come."""
        if self.file is None or not (is_last or run.iteration % self._every == 0):
            return
        state = run.state_dict()
        if run.processes.rank == 0:
            with whole_file(self.file) as stream:
                torch.save(state, stream)
            # Find out now, not after the week, that an optimizer's state cannot be read.
            if not self._is_proven:
                read(self.file)
        self._is_proven = True


def read(file: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Raises:
        ValueError: If the file is damaged or no checkpoint.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            # by the CRC-32 of every record, which torch.load does not look at
            damaged = archive.testzip()
        state = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is wrong with a file shows in errors of many types
        raise invalid(
            f"checkpoint {file}", "be whole", f"{type(error).__name__}: {error}", ANEW
        ) from error
    if damaged:
        raise invalid(
            f"checkpoint {file}", "be whole", f"one whose record {damaged} is damaged", ANEW
        )
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise invalid(f"file {file}", "be a checkpoint of fit", "another file", ANEW)
    return state
