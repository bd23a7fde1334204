"""Loss and accuracy of labels, of which some may be padding or left out."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_int64, invalid, mistyped
from metalearn._layers._network import field_of
from metalearn._tree import over_first_axes

IGNORED = -100
"""The label that PyTorch's criteria leave out if none is given."""


def cross_entropy(
    output: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = IGNORED
) -> Tensor:
    """Return the mean cross-entropy of a task's labels, a scalar: a criterion for padded tasks.

    With losses l_np of example n at place p, weights w_n, and m_np = 0 where the label is
    `ignore_index`, else 1, it is sum_np w_n m_np l_np / sum_np w_n m_np: a mean over labels, not of
    examples' means. Examples of weight 0 are left out; without weights it is `F.cross_entropy`.
    Where nothing is left to judge it is NaN, as PyTorch's.

    Args:
        output: Logits `[num_examples, num_classes, ...]`: classes are axis 1.
        target: Class indices `[num_examples, ...]`, of examples or of places in them, as pixels
            are.
        weight: Weights `[num_examples]`, zero for padding; None weighs all alike. With one label an
            example, classes without a weighted example are then no part of the task: their logits
            do not count, so that a task's examples must come together. With dense labels, and
            without weights, all classes count.
        ignore_index: The label that is left out, whatever its example's weight.

    Raises:
        TypeError: If an argument is no tensor, the target not of int64, or `ignore_index` no int.
        ValueError: If shapes disagree.

    >>> logits = torch.tensor([[2.0, 1.0, 9.0], [0.0, 3.0, 9.0], [0.0, 0.0, 0.0]])
    >>> loss = cross_entropy(logits, torch.tensor([0, 1, 2]), torch.tensor([1.0, 1.0, 0.0]))
    >>> bool(loss == F.cross_entropy(logits[:2, :2], torch.tensor([0, 1])))
    True
    """
    _check_classified(output, target, weight, ignore_index)
    if target.dtype != torch.int64:
        raise mistyped("target", "be of int64", target.dtype, "Write target.long().")
    if weight is None:
        return F.cross_entropy(output, target, ignore_index=ignore_index)
    weights = _weights(target, weight, ignore_index)
    logits = _without_absent(output, target, weights)
    losses = F.cross_entropy(logits, target, reduction="none", ignore_index=ignore_index)
    return (weights * losses).sum() / weights.sum()


def own_loss(output: Any, target: Any = ()) -> Tensor:
    """Return the loss that a model computes itself, of labels among its inputs: a criterion.

    Args:
        output: What the model returns, with a field "loss", as Hugging Face's models do.
        target: Targets, which metrics need and this does not.

    Raises:
        ValueError: If there is no loss.
    """
    loss: Tensor = field_of(output, "loss")
    return loss


def accuracy(
    output: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = IGNORED
) -> Tensor:
    """Return the fraction of labels at which the logit is largest, a scalar.

    Labels are weighed and left out as by `cross_entropy`.

    Args:
        output: Logits `[num_examples, num_classes, ...]`, or what has them as "logits".
        target: Class indices `[num_examples, ...]`.
        weight: As for `cross_entropy`.
        ignore_index: As for `cross_entropy`.

    Raises:
        TypeError: If an argument is no tensor, or `ignore_index` no int.
        ValueError: If shapes disagree.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    if not isinstance(output, Tensor) and hasattr(output, "logits"):
        output = output.logits
    _check_classified(output, target, weight, ignore_index)
    if weight is None:
        right, counts = output.argmax(1) == target, target != ignore_index
        return (right & counts).sum().float() / counts.sum()
    weights = _weights(target, weight, ignore_index)
    right = _without_absent(output, target, weights).argmax(1) == target
    return (weights * right).sum() / weights.sum()


def _check_classified(output: Any, target: Any, weight: Any, ignore_index: Any) -> None:
    """Raise unless these are logits, targets and perhaps weights of as many examples."""
    given = {"output": output, "target": target} | ({} if weight is None else {"weight": weight})
    for what, value in given.items():
        if not isinstance(value, Tensor):
            fix = "Pass logits, class indices and weights."
            raise mistyped(what, "be a tensor", brief(value), fix)
    check_int64("ignore_index", ignore_index, fix="Write ignore_index=255, say.")
    shapes = {what: tuple(value.shape) for what, value in given.items()}
    of_places, of_examples = output.shape[:1] + output.shape[2:], output.shape[:1]
    fits = output.dim() > 1 and 0 not in output.shape and target.shape == of_places
    if not fits or (weight is not None and weight.shape != of_examples):
        condition = (
            "be output [num_examples, num_classes, ...], target [num_examples, ...] and perhaps "
            "weight [num_examples]"
        )
        fix = "Pass one task's examples, classes on axis 1: output.movedim(-1, 1) if they are last."
        raise invalid("what is judged", condition, shapes, fix)


def one_hot(index: Tensor, size: int) -> Tensor:
    """Return `[..., size]`, true at each index; `F.one_hot` fails under vmap of grad."""
    return index[..., None] == torch.arange(size, device=index.device)


def _weights(target: Tensor, weight: Tensor, ignore_index: int) -> Tensor:
    """Return every label's weight, that of its example or zero, shaped as the target."""
    return over_first_axes(weight, target) * (target != ignore_index)


def _without_absent(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return logits in which classes without a weighted example are next to minus infinity."""
    if output.dim() > 2:
        return output  # of dense labels, which need not be of all classes
    present = (one_hot(target, output.shape[1]) & (weights > 0)[:, None]).any(0)
    # finite, since it meets weights of zero
    return output.masked_fill(~present, torch.finfo(output.dtype).min / 2)
