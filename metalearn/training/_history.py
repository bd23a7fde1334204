"""The history that `fit` returns."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metalearn._sharded import whole_state
from metalearn._tree import over_first_axes
from metalearn.evaluation import Learner
from metalearn.outer import Replicas
from metalearn.training._processes import Processes


@dataclass
class History:
    """The history of a training run; for R replicas, each number and score below is R of them.

    Attributes:
        loss: Meta-loss of each iteration `[num_iterations]`, on the CPU; NaN where a task diverged.
        num_diverged: Number of tasks with a non-finite loss or gradient in each iteration,
            `[num_iterations]`.
        scores: Validation scores, by the number of iterations before them.
        best_states: The learner's `state_dict` at its `keep_best` lowest scores, the best first;
            fewer, if fewer scores were finite.
        seconds: Wall time.
        keep_best: Number of states to keep.
    """

    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    num_diverged: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    scores: dict[int, Any] = field(default_factory=dict)
    best_states: list[dict[str, Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    keep_best: int = 1
    _unread: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        """Return a one-line summary; during training, this synchronises with a GPU."""
        count = len(self.loss) + len(self._unread)
        diverged = [self.num_diverged, *(unread for _, unread in self._unread)]
        num_diverged = sum(int(each.sum()) for each in diverged)
        parts = [f"{count} iterations"]
        parts += [f"recent loss {self.recent_loss(100):.4g}"] if count else []
        parts += [self._best()] if self.scores else []
        parts += [f"{num_diverged} diverged tasks"] if num_diverged else []
        return f"History({', '.join(parts)}, {self.seconds:.1f} s)"

    @property
    def best_state(self) -> dict[str, Tensor] | None:
        """The `state_dict` at each replica's lowest score; None without a finite score."""
        return self.best_states[0] if self.best_states else None

    @property
    def best_iteration(self) -> Any:
        """Number of iterations before the lowest score; None without a finite score."""
        if not self.scores:
            return None
        scores, iterations = self._scores(), list(self.scores)
        lowest, best = scores.reshape(len(scores), -1).min(0)
        pairs = zip(lowest.tolist(), best.tolist(), strict=True)
        chosen = [iterations[index] if math.isfinite(score) else None for score, index in pairs]
        return chosen if scores.dim() > 1 else chosen[0]

    def add(self, loss: Tensor, num_diverged: Tensor) -> None:
        """Add an iteration's numbers unread, since reading them would synchronise with a GPU."""
        self._unread.append((loss, num_diverged))

    def read(self, processes: Processes) -> None:
        """Read added numbers: the mean loss and total diverged tasks over all processes."""
        if self._unread:
            loss, num_diverged = (torch.stack(values) for values in zip(*self._unread, strict=True))
            self.loss = _joined(self.loss, processes.sum(loss) / processes.count)
            self.num_diverged = _joined(self.num_diverged, processes.sum(num_diverged))
            self._unread = []

    def record(self, iteration: int, scores: Tensor, learner: Learner) -> None:
        """Add the scores after an iteration, a scalar or `[R]`; keep the states of the lowest."""
        rank = (self._scores() <= scores).sum(0) if self.scores else torch.zeros_like(scores)
        is_kept = (rank < self.keep_best) & (scores < math.inf)
        self.scores[iteration] = scores.tolist()
        if not is_kept.any():
            return
        state = {name: tensor.detach().clone() for name, tensor in whole_state(learner).items()}
        if isinstance(learner, Replicas):
            old = self.best_state or state
            self.best_states = [_replaced(old, state, is_kept, learner.constants)]
        else:
            self.best_states.insert(int(rank), state)
            del self.best_states[self.keep_best :]

    def recent_loss(self, count: int) -> float:
        """Return the mean of the finite among the last `count` losses; NaN if there are none.

        This synchronises with a GPU.
        """
        unread = [loss.cpu() for loss, _ in self._unread[-count:]]
        recent = self.loss[-count:]
        recent = (_joined(recent, torch.stack(unread)) if unread else recent)[-count:]
        return recent[recent.isfinite()].mean().item()

    def shown(self) -> dict[str, str]:
        """Return the progress bar's numbers: the mean of 100 recent losses and the last score."""
        shown = {"loss": f"{self.recent_loss(100):.4g}"}
        if self.scores:
            shown["score"] = f"{self._scores()[-1].mean().item():.4g}"
        return shown

    def _best(self) -> str:
        lowest = self._scores().amin(0)
        if not lowest.isfinite().any():
            return "no finite score"
        where = f"at iteration {self.best_iteration}"
        if lowest.dim():
            where = f"in the mean of {len(lowest)} replicas"
        return f"best score {lowest.mean().item():.4g} {where}"

    def _scores(self) -> Tensor:
        """Return all scores, `[validations]` or `[validations, R]`, with NaN as infinity."""
        scores = torch.tensor(list(self.scores.values()), dtype=torch.float64)
        return scores.nan_to_num(math.inf, math.inf)


def _joined(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new.cpu()]) if len(old) else new.cpu()


def _replaced(
    old: dict[str, Tensor], new: dict[str, Tensor], which: Tensor, constants: frozenset[str]
) -> dict[str, Tensor]:
    """Return the replicas' old state, with the new state where `which` `[R]` is true."""
    state = dict(new)
    for name in new.keys() - constants:
        tensor, device = new[name], new[name].device
        is_new = over_first_axes(which.to(device), tensor)
        state[name] = torch.where(is_new, tensor, old[name].to(device))
    return state
