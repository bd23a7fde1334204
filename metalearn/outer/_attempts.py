"""What a learner does about a model that fails in ways that are known: calls it otherwise.

Activation checkpoints put hooks on saved tensors: the backward pass would come back to a model
whose parameters have been put back, so that it is called by copies. While hooks are forbidden, no
such thing goes unnoticed. Attention is computed by the kernel that has second derivatives, and a
model that looks at values, which `vmap` cannot, is told that it is traced.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import disable_saved_tensors_hooks

from metalearn._calls import CallWithin, Context, as_traced, contexts_of, plain_attention
from metalearn._checks import invalid
from metalearn._layers import Network
from metalearn._sharded import whole_when_read
from metalearn.functional import ModelLoss
from metalearn.functional._losses import is_of_model
from metalearn.outer._copied_loss import are_copied, with_copies
from metalearn.types import Problem

AGAIN = "a part of the model is computed again in the backward pass"
SIGNS = (AGAIN, "_NoopSaveInputs")
"""What errors say of it; PyTorch 2.11 says the second of a checkpoint under `vmap`, before it asks
for hooks."""
CONTEXTS: dict[str, Context] = {
    "scaled_dot_product": plain_attention,
    "data-dependent control flow": as_traced,
}
"""By a part of what PyTorch says: within what the model is called instead."""

Remedy = Callable[[Problem], Problem]


class Attempt:
    """A context in which a learner computes, without hooks on saved tensors if it can tell.

    Attributes:
        remedy: What makes the learner's problem one to try again; the error is then suppressed.
            None if nothing failed, or nothing helps.
    """

    def __init__(self, learner: Any, is_captured: bool) -> None:
        self._learner = learner
        compiles = is_captured or learner.compile_options is not False
        traced = compiles or torch.compiler.is_compiling()
        self._whole = whole_when_read(learner.model)
        self._forbids = not traced and _are_of_model(learner.problem)
        self.remedy: Remedy | None = None

    def __enter__(self) -> None:
        self._whole.__enter__()
        if self._forbids:
            self._forbidden = disable_saved_tensors_hooks(AGAIN)
            try:
                self._forbidden.__enter__()
            except RuntimeError:  # there are hooks around the call, of the user's own
                self._forbids = False

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if self._forbids:
            self._forbidden.__exit__(None, None, None)
        self._whole.__exit__(None, None, None)
        if isinstance(error, RuntimeError | ValueError):
            # of the problem as it is now: an attempt inside of this one may have changed it
            is_again = self._forbids and any(sign in str(error) for sign in SIGNS)
            self.remedy = with_copies if is_again else remedy_of(error, self._learner.problem)
        return self.remedy is not None


def attempts(learner: Any, is_captured: bool = False) -> Iterator[Attempt]:
    """Yield a context to compute in, and another one for as long as a remedy may help.

    Write `for attempt in attempts(learner):` and `with attempt:`.

    What computes must read the learner's problem, which is replaced between the two. Where it is
    captured whatever the learner's `compile` is, hooks are not forbidden.
    """
    yield (attempt := Attempt(learner, is_captured))
    while attempt.remedy is not None:
        learner.problem = attempt.remedy(learner.problem)
        yield (attempt := Attempt(learner, is_captured))


def remedy_of(error: BaseException, problem: Problem) -> Remedy | None:
    """Return what makes a problem one whose model does not fail like this; None if nothing does."""
    for sign, context in CONTEXTS.items():
        if sign in str(error) and not is_within(problem, context):
            return partial(within, context=context)
    return None


def is_within(problem: Problem, context: Context) -> bool:
    """Return whether a problem's model is called within a context, or can not be."""
    contexts = _contexts(problem)
    return contexts is None or context in contexts


def surroundings(problem: Problem) -> AbstractContextManager[None]:
    """Return a context for all that is computed: backward passes may compute a model again."""
    return plain_attention() if plain_attention in (_contexts(problem) or ()) else nullcontext()


def _contexts(problem: Problem) -> tuple[Context, ...] | None:
    """Return the contexts that a problem's model is called within; None if it is not known."""
    losses: Any = (problem.support_loss, problem.query_loss)
    if not all(isinstance(getattr(on, "loss", None), ModelLoss) for on in losses):
        return None
    return contexts_of(losses[0].loss.network.call)


def within(problem: Problem, context: Context) -> Problem:
    """Return a problem whose model is called within one more context."""

    def of(on: Any) -> Any:
        network = on.loss.network
        call = CallWithin((*contexts_of(network.call), context))
        network = Network.of(on.loss.model, call, network.output)
        return replace(on, loss=replace(on.loss, network=network))

    return problem._replace(
        support_loss=of(problem.support_loss), query_loss=of(problem.query_loss)
    )


def called_as(problem: Problem, other: Problem) -> Problem:
    """Return a problem whose model is called as that of another one."""
    if are_copied(other) and not are_copied(problem):
        problem = with_copies(problem)
    for context in CONTEXTS.values():
        if is_within(other, context) and not is_within(problem, context):
            problem = within(problem, context)
    return problem


def _are_of_model(problem: Problem) -> bool:
    return is_of_model(problem.support_loss) and is_of_model(problem.query_loss)


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
