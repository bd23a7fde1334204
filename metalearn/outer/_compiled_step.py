"""A whole training iteration as one compiled graph: meta-gradient, clipping, optimizer's step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalearn._checks import invalid, message
from metalearn._tree import tree_leaves, tree_map
from metalearn.outer._attempts import attempts
from metalearn.outer._capture import mark_as_stepped
from metalearn.outer._captured_step import CapturedStep
from metalearn.outer._checks._optimizer import BY_HAND, check_can_be_compiled
from metalearn.outer._estimates import Setup, whole
from metalearn.outer._optimizers import Updates
from metalearn.outer._plan import Plans
from metalearn.types import Carry, Episode, Meta, PyTree


class Owner(NamedTuple):
    """Whose training iterations they are.

    Attributes:
        module: The learner, or replicas.
        learner: The learner, or that of the replicas.
        num_replicas: Number of replicas; None for a learner.
        estimate: `estimate_tasks`, or what does the same for replicas.
    """

    module: Any
    learner: Any
    num_replicas: int | None
    estimate: Callable[..., Any]


class CompiledStep:
    """A meta-step and the step of an optimizer in one call, without autograd between them.

    Calling it on episodes does what `optimizer.zero_grad()`, `loss = learner(episodes)`,
    `loss.backward()` and `optimizer.step()` do, to rounding. The optimizer's own state and rates
    are read and its state is written, so that schedulers and `state_dict` work as ever; `.grad` is
    neither read nor written, and hooks do not run. `learner.compiled_step(optimizer)` makes it.
    """

    is_compiled = True

    def __init__(self, owner: Owner, optimizer: Any, max_grad_norm: float | None) -> None:
        self._owner, self._optimizer, self._max_norm = owner, optimizer, max_grad_norm
        _refuse_inference_mode()
        self._begin()

    def __call__(self, episodes: Episode, *, keys: Tensor | None = None) -> Tensor:
        """Take one training iteration and return the loss before it, of replicas `[R]`.

        Args:
            episodes: Tasks, with a leading task axis.
            keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
                given.

        Raises:
            TypeError: As the learner's `forward`.
            ValueError: As the learner's `forward`; or if tasks come in chunks, or the optimizer is
                no longer what a graph can hold.
            RuntimeError: If the step cannot be captured, or under `torch.inference_mode`.
        """
        _refuse_inference_mode()
        module, learner = self._owner.module, self._owner.learner
        if self._updates.structure_now(self._optimizer) != self._made_for:
            self._begin()
        for attempt in attempts(learner, is_captured=True):
            with attempt, torch.no_grad():
                plan, keys, carry = module._prepared(self._plans, episodes, keys)
                numbers = self._updates.numbers_now(self._optimizer, plan.device)
                tensors = plan.meta or learner.meta, self._updates.states_now(), *carry
                loss, diagnostics, carry = plan.run(
                    learner, plan.setup, *tensors, episodes, keys, numbers
                )
        module._keep(plan, episodes, keys, diagnostics, carry)
        mark_as_stepped(self._optimizer)
        return loss

    def for_kind(self, chunk_size: int | None) -> Callable[..., Any]:
        """Return the iteration for one kind of call, compiled when it is called first."""
        if chunk_size is not None:
            is_loop = self._owner.learner.batching == "loop"
            got = "batching='loop'" if is_loop else f"chunk_size={chunk_size}"
            raise invalid("tasks of a compiled step", "be computed at once", got, BY_HAND)
        self._check()  # the optimizer, since what is learned may be others than before
        function = partial(_iteration, self._owner, self._updates)
        made: list[CapturedStep] = []

        def run(*args: Any) -> Any:
            if not made:
                with _explained():
                    made.append(CapturedStep(function, {}, args, num_written=2))
            return made[0](*args)

        return run

    def _begin(self) -> None:
        """Read the optimizer, and forget what was compiled for another state of it."""
        self._check()
        owner = self._owner
        leaves = tree_leaves(owner.learner.meta)
        self._updates = Updates(self._optimizer, leaves, self._max_norm, owner.num_replicas)
        self._plans = Plans(self, own=owner.num_replicas is not None)
        self._made_for = self._updates.structure_now(self._optimizer)

    def _check(self) -> None:
        module, learner, *_ = self._owner
        check_can_be_compiled(module, learner, self._optimizer, self._max_norm)


def _refuse_inference_mode() -> None:
    if torch.is_inference_mode_enabled():
        got, fix = "torch.inference_mode", "Leave the mode, or write learner(episodes) to evaluate."
        raise RuntimeError(message("mode of a compiled step", "let parameters change", got, fix))


@contextmanager
def _explained() -> Iterator[None]:
    """Add to an error of a step that cannot be captured how to do without."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, torch.OutOfMemoryError):
            error.add_note(f"This step cannot be captured as one graph. {BY_HAND}")
        raise


def _iteration(
    owner: Owner,
    updates: Updates,
    learner: Any,
    setup: Setup,
    meta: Meta,
    states: tuple[Tensor, ...],
    common: PyTree,
    own: PyTree,
    episodes: Episode,
    keys: Tensor,
    numbers: Tensor,
) -> tuple[Tensor, dict[str, Tensor], Carry]:
    """Write what is learned and the optimizer's states; return loss, diagnostics and carry."""
    estimate = whole(owner.estimate, None, learner, setup, meta, common, own, episodes, keys)
    carry = tree_map(Tensor.clone, estimate.carry)  # which may be what is written to
    updates(tree_leaves(meta), tree_leaves(estimate.gradient), states, numbers)
    return estimate.loss.mean(-1), estimate.diagnostics, carry
