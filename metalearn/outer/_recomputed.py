"""Models that the backward pass computes again: noticed there, and called by copies.

Activation checkpoints put hooks on saved tensors. While hooks are forbidden, no backward pass can
come back to a model whose parameters have been put back.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.graph import disable_saved_tensors_hooks

from metalearn._checks import invalid
from metalearn.functional._losses import is_of_model
from metalearn.outer._copied_loss import are_copied, with_copies

AGAIN = "a part of the model is computed again in the backward pass"
SIGNS = (AGAIN, "_NoopSaveInputs")
"""What errors say of it; PyTorch 2.11 says the second of a checkpoint under `vmap`, before it asks
for hooks."""


class Attempt:
    """A context in which a learner computes, without hooks on saved tensors if it can tell.

    Attributes:
        failed: Whether the model asked for hooks; the error is then suppressed.
    """

    def __init__(self, learner: Any) -> None:
        losses = learner.problem.support_loss, learner.problem.query_loss
        traced = torch.compiler.is_compiling() or learner.compile_options is not False
        self._forbids = not traced and all(map(is_of_model, losses))
        self.failed = False

    def __enter__(self) -> None:
        if self._forbids:
            self._forbidden = disable_saved_tensors_hooks(AGAIN)
            try:
                self._forbidden.__enter__()
            except RuntimeError:  # there are hooks around the call, of the user's own
                self._forbids = False

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if not self._forbids:
            return False
        self._forbidden.__exit__(None, None, None)
        is_of_autograd = isinstance(error, RuntimeError | ValueError)
        self.failed = is_of_autograd and any(sign in str(error) for sign in SIGNS)
        return self.failed


def attempts(learner: Any) -> Iterator[Attempt]:
    """Yield a context to compute in, and another one if copies of the model are needed.

    Write `for attempt in attempts(learner):` and `with attempt:`.

    What computes must read the learner's problem, which is replaced between the two.
    """
    yield (first := Attempt(learner))
    if first.failed:
        learner.problem = with_copies(learner.problem)
        yield Attempt(learner)


def check_copied(learner: Any, num_tasks: int) -> None:
    """Raise if a model that must be called by copies would be traced."""
    if not are_copied(learner.problem):
        return
    what = "model that computes a part again in the backward pass, as torch.utils.checkpoint does,"
    if learner.batching == "vmap" and learner.chunk_size != 1 and num_tasks > 1:
        fix = (
            "Choose batching='loop', or outer.Stepwise() without checkpoints, which spares the "
            "same memory."
        )
        raise invalid(what, "be called task by task", "vmap", fix)
    if learner.compile_options is not False:
        fix = "Call learner.set_batching('loop')."
        raise invalid(what, "not be compiled", f"compile={learner.compile_options}", fix)
