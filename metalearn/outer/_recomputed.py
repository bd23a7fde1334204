"""Models that the backward pass computes again: noticed where they ask autograd for it, and called
by copies.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.autograd.graph import disable_saved_tensors_hooks

from metalearn.functional._losses import is_of_model
from metalearn.outer._copied_loss import with_copies
from metalearn.outer._learner_checks import check_copied

if TYPE_CHECKING:
    from metalearn.outer._learner import MetaLearner

T = TypeVar("T")
AGAIN = "a part of the model is computed again in the backward pass"
SIGNS = (AGAIN, "_NoopSaveInputs")
"""What errors say of it; PyTorch 2.11 says the second of a checkpoint under `vmap`, before it asks
for hooks."""


def exactly(learner: "MetaLearner", compute: Callable[[], T], num_tasks: int = 1) -> T:
    """Compute with the learner's problem, or by copies of the model if the backward pass would
    compute it again.

    Activation checkpoints put hooks on saved tensors. While hooks are forbidden, no backward pass
    can come back to a model whose parameters have been put back.

    Args:
        learner: The learner, whose problem is replaced if need be.
        compute: Reads `learner.problem`; called again from the start if need be.
        num_tasks: Number of tasks that are computed at once, or in a loop.

    Raises:
        ValueError: If copies are needed where they cannot be called.
    """
    losses = learner.problem.support_loss, learner.problem.query_loss
    traced = torch.compiler.is_compiling() or learner.compile_options is not False
    if traced or not all(map(is_of_model, losses)):
        return compute()
    with ExitStack() as stack:
        try:
            stack.enter_context(disable_saved_tensors_hooks(AGAIN))
        except RuntimeError:  # there are hooks around the call, of the user's own
            return compute()
        try:
            return compute()
        except (RuntimeError, ValueError) as error:
            if not any(sign in str(error) for sign in SIGNS):
                raise
    learner.problem = with_copies(learner.problem)
    check_copied(learner, num_tasks)
    return compute()
