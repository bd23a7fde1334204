"""Criteria of all tasks at once, without `vmap`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metalearn._tree import tree_leaves
from metalearn.functional._criteria import IGNORED, cross_entropy
from metalearn.types import Batch


def is_known(criterion: Callable[..., Any], outputs: Any, batch: Batch) -> bool:
    """Return whether `known_losses` computes the criterion of these outputs and targets.

    Args:
        criterion: `F.mse_loss`, `F.cross_entropy` or `functional.cross_entropy`, to be known; the
            latter two also as a `partial` with an `ignore_index`.
        outputs: What a model returns, with a leading task axis.
        batch: The examples, likewise; without weights.
    """
    targets = batch.y
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or tree_leaves(batch.weight):
        return False
    if criterion is F.mse_loss:
        return outputs.shape == targets.shape and outputs.dim() > 1
    are_classes = outputs.dim() > 2 and targets.shape == outputs.shape[:2] + outputs.shape[3:]
    return are_classes and not targets.is_floating_point() and _ignored(criterion) is not None


def known_losses(criterion: Callable[..., Any], outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a known criterion of every task, `[num_tasks]`."""
    if criterion is F.mse_loss:
        return F.mse_loss(outputs, targets, reduction="none").flatten(1).mean(1)
    ignored: Any = _ignored(criterion)
    flat = outputs.flatten(0, 1), targets.flatten(0, 1)
    each = F.cross_entropy(*flat, reduction="none", ignore_index=ignored)
    return each.reshape(len(targets), -1).sum(1) / (targets != ignored).flatten(1).sum(1)


def _ignored(criterion: Any) -> int | None:
    """Return the label that a cross-entropy leaves out; None of another criterion."""
    if criterion in (F.cross_entropy, cross_entropy):
        return IGNORED
    if not isinstance(criterion, partial) or _ignored(criterion.func) is None:
        return None
    changes_more = criterion.args or criterion.keywords.keys() != {"ignore_index"}
    return None if changes_more else criterion.keywords["ignore_index"]
