"""What two learners must have in common, to be trained side by side or one where the other was."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from metalearn._checks import as_list, invalid, mistyped
from metalearn.outer._learner import MetaLearner
from metalearn.outer._problem import OWNERS


def learners_of(what: str, learners: Any, fix: str) -> list[MetaLearner]:
    """Return what is given of several learners as a list; raise unless it is one of learners."""
    if isinstance(learners, nn.Module):
        raise mistyped(what, "be given a list of learners", type(learners).__name__, fix)
    learners = as_list(what, learners, "be given a list of learners", fix=fix)
    if not learners:
        raise invalid(what, "be given at least one learner", "none", fix)
    for learner in learners:
        if not isinstance(learner, MetaLearner):
            raise mistyped(what, "be given learners", type(learner).__name__, fix)
    return learners


def signature(learner: MetaLearner) -> dict[str, Any]:
    """Return what makes a learner, but for tensors' values and how tasks are batched."""
    problem = learner.problem
    return {
        **{f"tensor {name}": _layout(tensor) for name, tensor in tensors_of(learner)},
        "update rule": problem.rule,
        "losses": [getattr(learner, part) for part in OWNERS],
        "output": learner.output,
        "support_batches": learner.support_batches,
        "estimator": learner.estimator,
        "number of inner steps": problem.num_steps,
        "fast parameters": list(learner.meta.init),
    }


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first name under which two signatures differ, with what each has; None if none."""
    for what in ours | theirs:
        if (one := ours.get(what)) != (other := theirs.get(what)):
            return what, one, other
    return None


def tensors_of(learner: MetaLearner) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers, but what is carried, under every name of tied ones."""
    parameters = learner.named_parameters(remove_duplicate=False)
    tensors = [*parameters, *learner.named_buffers(remove_duplicate=False)]
    return [(name, tensor) for name, tensor in tensors if not name.startswith("carry.")]


def _layout(tensor: Tensor) -> str:
    learned = "" if tensor.requires_grad else ", not learned"
    return f"{tensor.dtype} {list(tensor.shape)}{learned}"
