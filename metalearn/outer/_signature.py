"""What two learners must have in common, to be trained side by side or one where the other was."""

from typing import Any

from torch import Tensor

from metalearn.outer._learner import MetaLearner
from metalearn.outer._problem import OWNERS


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
