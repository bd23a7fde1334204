"""Loss and accuracy of classified examples, of which some may be padding."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import invalid


def cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of a task's examples, a scalar: a criterion for tasks that are padded.

    Args:
        output: Logits `[num_examples, num_classes]`.
        target: Class indices `[num_examples]`.
        weight: Weights `[num_examples]`, zero for padding. Classes without a weighted example are no part of the task:
            their logits do not count, so that a task's examples must come together. None weighs all alike and takes
            all classes.

    Raises:
        TypeError: If an argument is no tensor, or the target not of int64.
        ValueError: If shapes disagree.

    >>> logits = torch.tensor([[2.0, 1.0, 9.0], [0.0, 3.0, 9.0], [0.0, 0.0, 0.0]])
    >>> loss = cross_entropy(logits, torch.tensor([0, 1, 2]), torch.tensor([1.0, 1.0, 0.0]))
    >>> bool(loss == F.cross_entropy(logits[:2, :2], torch.tensor([0, 1])))
    True
    """
    _check_classified(output, target, weight)
    if target.dtype != torch.int64:
        raise TypeError(invalid("target", "be of int64", target.dtype, "Write target.long()."))
    if weight is None:
        return F.cross_entropy(output, target)
    hot = one_hot(target, output.shape[-1])
    losses = -(hot * F.log_softmax(_without_absent(output, hot, weight), -1)).sum(-1)
    return (weight * losses).sum() / weight.sum()


def accuracy(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the fraction of examples whose largest logit is at the target, a scalar.

    Args:
        output: Logits `[num_examples, num_classes]`.
        target: Class indices `[num_examples]`.
        weight: As for `cross_entropy`.

    Raises:
        TypeError: If an argument is no tensor.
        ValueError: If shapes disagree.

    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    _check_classified(output, target, weight)
    if weight is None:
        return (output.argmax(-1) == target).float().mean()
    right = _without_absent(output, one_hot(target, output.shape[-1]), weight).argmax(-1) == target
    return (weight * right).sum() / weight.sum()


def _check_classified(output: Any, target: Any, weight: Any) -> None:
    """Raise unless these are logits, targets and perhaps weights of as many examples."""
    given = {"output": output, "target": target} | ({} if weight is None else {"weight": weight})
    for what, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(invalid(what, "be a tensor", repr(value), "Pass logits, class indices and weights."))
    shapes = {what: tuple(value.shape) for what, value in given.items()}
    if output.dim() != 2 or 0 in output.shape or any(shape != output.shape[:1] for shape in list(shapes.values())[1:]):
        condition = "be output [num_examples, num_classes] and one number an example, at least 1 of them"
        raise ValueError(invalid("what is judged", condition, shapes, "Pass one task's examples."))


def one_hot(index: Tensor, size: int) -> Tensor:
    """Return `[..., size]`, true at each index; `F.one_hot` reads the indices, which fails under vmap of grad."""
    return index[..., None] == torch.arange(size, device=index.device)


def _without_absent(output: Tensor, hot: Tensor, weight: Tensor) -> Tensor:
    """Return logits of which those of classes without a weighted example are next to minus infinity."""
    present = (hot & (weight > 0)[..., None]).any(-2, keepdim=True)
    return output.masked_fill(~present, torch.finfo(output.dtype).min / 2)  # finite, since it meets weights of zero
