"""What PyTorch's criteria are known to take, and whether a learner's data are that."""

from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from metalearn._checks import invalid, mistyped
from metalearn._tree import tree_leaves
from metalearn.functional import ModelLoss, cross_entropy
from metalearn.models import BatchNorm
from metalearn.types import Batch

CLASS_INDICES: tuple[Any, ...] = (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss)
PROBABILITIES: tuple[Any, ...] = (F.binary_cross_entropy, nn.BCELoss)
LOGITS: tuple[Any, ...] = (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss)
ELEMENTWISE: tuple[Any, ...] = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
ELEMENTWISE += (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, *PROBABILITIES, *LOGITS)


def _bare(criterion: Any) -> Any:
    """Return the criterion that a partial is of."""
    while isinstance(criterion, partial):
        criterion = criterion.func
    return criterion


def judges_targets(loss: ModelLoss, target: Any) -> bool:
    """Return whether it is known what targets the criterion takes."""
    known = (*CLASS_INDICES, *ELEMENTWISE, cross_entropy)
    return _is_one_of(_bare(loss.criterion), known) and isinstance(target, Tensor)


def check_weights(loss: ModelLoss, batch: Batch) -> None:
    """Raise if weights of examples would not reach a batch normalisation layer, or the
    criterion.
    """
    if not tree_leaves(batch.weight):
        return
    norms = [
        (name, module)
        for name, module in loss.model.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    if deaf := [name for name, norm in norms if not isinstance(norm, BatchNorm)]:
        fix = (
            "Write models.use_batch_statistics(model, 'support'), or 'transductive' as it is now; "
            "see docs/gotchas.md."
        )
        raise invalid(
            "batch normalisation", "weigh examples as their batch does", f"plain {deaf}", fix
        )
    if _is_one_of(criterion := _bare(loss.criterion), CLASS_INDICES + ELEMENTWISE):
        fix = f"Write {_weighted(criterion)}."
        raise mistyped("criterion", "take a weight for every example", loss.criterion, fix)


def _weighted(criterion: Any) -> str:
    """Return a criterion that takes weights in place of one that does not."""
    if _is_one_of(criterion, CLASS_INDICES):
        return "functional.cross_entropy"
    element = "(o - y).square()"
    if _is_one_of(criterion, PROBABILITIES + LOGITS):
        logits = "_with_logits" if _is_one_of(criterion, LOGITS) else ""
        element = f"F.binary_cross_entropy{logits}(o, y, reduction='none')"
    return f"lambda o, y, w: (w * {element}.mean(-1)).sum() / w.sum()"


def check_label_axes(name: str, criterion: Any, target: Tensor) -> None:
    """Raise if labels have the axis of tasks alone, which is then that of one task's examples."""
    if target.dim() == 1 and not _is_one_of(_bare(criterion), ELEMENTWISE):
        got, fix = f"shape {tuple(target.shape)}", "For one task write x[None] and y[None]."
        raise invalid(f"{name} labels", "be [num_tasks, num_examples]", got, fix)


def check_targets(name: str, criterion: Any, output: Any, target: Tensor) -> None:
    """Raise if targets do not fit the model's output: a label without a logit kills a process that
    uses a GPU.
    """
    if not isinstance(output, Tensor):
        fix = "Return a tensor, or write a criterion that takes what it returns."
        raise mistyped(
            "model", f"give {name} outputs that are a tensor", type(output).__name__, fix
        )
    if _is_one_of(_bare(criterion), ELEMENTWISE):
        if output.shape != target.shape[1:]:
            got = f"{tuple(output.shape)} and {tuple(target.shape[1:])}"
            fix = "Give y the model's shape: y[..., None], say."
            raise invalid(f"{name} outputs and targets", "have one shape", got, fix)
    elif target.dim() == 2 and target.dtype != torch.int64:
        raise mistyped(f"{name} labels", "be of int64", target.dtype, "Write y.long().")
    elif target.dim() > 2 and output.dim() == 2 and not _are_probabilities(criterion, target):
        fix = "Write y.argmax(-1) for one-hot labels, y.squeeze(-1) for labels of one number."
        raise invalid(f"{name} labels", "be [num_tasks, num_examples]", tuple(target.shape), fix)
    elif not target.is_floating_point() and output.dim() > 1:
        _check_class_axis(name, output, target)
        _check_labels(name, target[target != _ignored(criterion)], output.shape[1])


def _are_probabilities(criterion: Any, target: Tensor) -> bool:
    """Return whether a criterion takes these targets as a probability for every class."""
    return target.is_floating_point() and _is_one_of(
        _bare(criterion), (F.cross_entropy, nn.CrossEntropyLoss)
    )


def _ignored(criterion: Any) -> int:
    """Return the label that a criterion ignores."""
    while isinstance(criterion, partial):
        if "ignore_index" in criterion.keywords:
            return int(criterion.keywords["ignore_index"])
        criterion = criterion.func
    return getattr(criterion, "ignore_index", -100)


def _check_class_axis(name: str, output: Tensor, target: Tensor) -> None:
    """Raise if classes are not along axis 1 of outputs for labels of several places, such as pixels
    or words.
    """
    of_one = tuple(target.shape[1:])
    if output.dim() > 2 and of_one != (len(output), *output.shape[2:]):
        got, fix = (
            f"{tuple(output.shape)} for labels {of_one}",
            "Give the model outputs [num_examples, classes, ...].",
        )
        if of_one == output.shape[:-1]:
            fix = "Write output.movedim(-1, 1) in the model or in a criterion of your own."
        raise invalid(f"{name} outputs", "have their classes along axis 1", got, fix)


def _check_labels(name: str, labels: Tensor, num_classes: int) -> None:
    if labels.numel() and not (labels.min() >= 0 and labels.max() < num_classes):
        got = f"labels from {labels.min().item()} to {labels.max().item()}"
        condition = f"be below the model's {num_classes} outputs and at least 0"
        raise invalid(f"{name} labels", condition, got, "Give the model n_way outputs.")


def _is_one_of(criterion: Any, known: tuple[Any, ...]) -> bool:
    return any(
        criterion is entry or (isinstance(entry, type) and isinstance(criterion, entry))
        for entry in known
    )
