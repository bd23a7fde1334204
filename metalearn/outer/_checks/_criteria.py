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

SOFT: tuple[Any, ...] = (F.cross_entropy, nn.CrossEntropyLoss)
"""Criteria that take class indices, or a probability for every class."""
CLASS_INDICES = (*SOFT, F.nll_loss, nn.NLLLoss)
PROBABILITIES: tuple[Any, ...] = (F.binary_cross_entropy, nn.BCELoss)
LOGITS: tuple[Any, ...] = (F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss)
ELEMENTWISE: tuple[Any, ...] = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
ELEMENTWISE += (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, *PROBABILITIES, *LOGITS)


def _is_one_of(criterion: Any, known: tuple[Any, ...]) -> bool:
    """Return whether a criterion, perhaps a partial, is a known function or of a known class."""
    while isinstance(criterion, partial):
        criterion = criterion.func
    classes = tuple(entry for entry in known if isinstance(entry, type))
    return isinstance(criterion, classes) or any(criterion is entry for entry in known)


def knows_targets(loss: ModelLoss, target: Any) -> bool:
    """Return whether it is known what targets the criterion takes."""
    known = (*CLASS_INDICES, *ELEMENTWISE, cross_entropy)
    return _is_one_of(loss.criterion, known) and isinstance(target, Tensor)


def check_weights(loss: ModelLoss, batch: Batch) -> None:
    """Raise if weights would not reach a batch normalisation layer or the criterion."""
    if not tree_leaves(batch.weight):
        return
    norms = {
        name: each for name, each in loss.model.named_modules() if isinstance(each, _BatchNorm)
    }
    if plain := [name for name, norm in norms.items() if not isinstance(norm, BatchNorm)]:
        condition = "weigh examples as their batch does"
        fix = (
            "Write models.use_batch_statistics(model, 'support'), or 'transductive' as it is now; "
        )
        fix += "see docs/gotchas.md."
        raise invalid("batch normalisation", condition, f"plain {plain}", fix)
    if _is_one_of(loss.criterion, CLASS_INDICES + ELEMENTWISE):
        fix = f"Write {_weighted(loss.criterion)}."
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
    """Raise if labels have one axis only, that of tasks, which is meant to be that of examples."""
    if target.dim() == 1 and not _is_one_of(criterion, ELEMENTWISE):
        got, fix = f"shape {tuple(target.shape)}", "For one task write x[None] and y[None]."
        raise invalid(f"{name} labels", "be [num_tasks, num_examples]", got, fix)


def check_targets(name: str, criterion: Any, output: Any, target: Tensor) -> None:
    """Raise if targets do not fit the output: on a GPU a label out of range kills the process."""
    labels, of_one = f"{name} labels", tuple(target.shape[1:])
    is_floating = target.is_floating_point()
    if not isinstance(output, Tensor):
        condition, got = f"give {name} outputs that are a tensor", type(output).__name__
        fix = "Return a tensor, or write a criterion that takes what it returns."
        raise mistyped("model", condition, got, fix)
    if _is_one_of(criterion, ELEMENTWISE):
        if output.shape != of_one:
            got, fix = (
                f"{tuple(output.shape)} and {of_one}",
                "Give y the model's shape: y[..., None], say.",
            )
            raise invalid(f"{name} outputs and targets", "have one shape", got, fix)
    elif target.dim() == 2 and target.dtype != torch.int64:
        raise mistyped(labels, "be of int64", target.dtype, "Write y.long().")
    elif (
        len(of_one) > 1 and output.dim() == 2 and not (is_floating and _is_one_of(criterion, SOFT))
    ):
        fix = "Write y.argmax(-1) for one-hot labels, y.squeeze(-1) for labels of one number."
        raise invalid(labels, "be [num_tasks, num_examples]", tuple(target.shape), fix)
    elif not is_floating and output.dim() > 1:
        _check_class_axis(f"{name} outputs", tuple(output.shape), of_one)
        _check_range(labels, target[target != _ignored(criterion)], output.shape[1])


def _ignored(criterion: Any) -> int:
    """Return the label that a criterion ignores."""
    while isinstance(criterion, partial):
        if "ignore_index" in criterion.keywords:
            return int(criterion.keywords["ignore_index"])
        criterion = criterion.func
    return getattr(criterion, "ignore_index", -100)


def _check_class_axis(what: str, outputs: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """Raise if classes are not along axis 1 where an example has many labels, as pixels or words.

    Args:
        what: What errors call the outputs.
        outputs: Shape of one task's outputs.
        labels: Shape of its labels.
    """
    if len(outputs) > 2 and labels != (outputs[0], *outputs[2:]):
        fix = "Give the model outputs [num_examples, classes, ...]."
        if labels == outputs[:-1]:
            fix = "Write output.movedim(-1, 1) in the model or in a criterion of your own."
        raise invalid(
            what, "have their classes along axis 1", f"{outputs} for labels {labels}", fix
        )


def _check_range(what: str, labels: Tensor, num_classes: int) -> None:
    """Raise if a label is below 0, or has no class."""
    if labels.numel() and not (labels.min() >= 0 and labels.max() < num_classes):
        got = f"labels from {labels.min().item()} to {labels.max().item()}"
        condition = f"be below the model's {num_classes} outputs and at least 0"
        raise invalid(what, condition, got, "Give the model n_way outputs.")
