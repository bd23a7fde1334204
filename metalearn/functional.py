"""Pure functions: keyed random numbers, and losses made from modules."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metalearn._checks import as_device, check_choice, check_count, check_function, check_generator, check_kind, invalid
from metalearn._modules import below, call_model, predict
from metalearn._tree import tree_map
from metalearn.models._batch_norm import Norms
from metalearn.types import Batch, Episode, Params

__all__ = [
    "ModelLoss",
    "ModuleLoss",
    "OnQuery",
    "OnSupport",
    "accuracy",
    "cross_entropy",
    "derive_key",
    "draw_keys",
    "normal",
    "safe_sqrt",
    "uniform",
]

_WORD = 0xFFFFFFFF
_DIGITS = {torch.float64: 32, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
"""Random bits by dtype: as many as it can hold next to 0.5 without rounding up to 1."""


def _mix(x: Tensor) -> Tensor:
    # 32-bit words held in int64 and factors below 2**31: no product overflows, so every backend agrees to the bit.
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x2C1B3C6D & _WORD
    return x ^ (x >> 13)


def uniform(key: Tensor, shape: tuple[int, ...], stream: int = 0, *, dtype: torch.dtype | None = None) -> Tensor:
    """Draw numbers from the open interval (0, 1) as a pure function of a key.

    The numbers are the same to the bit in eager mode, under `vmap`, in a loop and compiled, which
    `torch.rand` inside an update rule is not.

    Args:
        key: int64 in [0, 2**62), a scalar, or anything that broadcasts against `shape`.
        shape: Shape of the result.
        stream: Selects one of many independent sequences of the same key, at least 0.
        dtype: Floating dtype of the result, `torch.get_default_dtype()` if not given.

    Returns:
        Tensor of `shape`, or what it and the key's shape broadcast to, with as many random bits as `dtype` has digits,
        at most 32.

    Raises:
        TypeError: If the key is no int64 tensor, or the shape no tuple of ints.
        ValueError: If `stream` or a size is negative, `dtype` is no floating one, or key and shape do not broadcast.

    References:
        The mixing follows C. Wellons, "Prospecting for hash functions", 2018.

    >>> key = torch.tensor(7)
    >>> bool((uniform(key, (3,)) == uniform(key, (3,))).all())
    True
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _check_key(key)
    _check_shape(shape, key)
    check_count("stream", stream, minimum=0)
    check_choice("dtype", dtype, _DIGITS)
    counter = torch.arange(torch.Size(shape).numel(), dtype=torch.int64, device=key.device).reshape(shape)
    word = _mix(counter + 0x9E3779B1 & _WORD)
    for part in (stream & _WORD, key & _WORD, key >> 32):
        word = _mix(word ^ part)
    digits = _DIGITS[dtype]
    return ((_mix(word) >> (32 - digits)).to(dtype) + 0.5) / 2**digits


def normal(key: Tensor, shape: tuple[int, ...], stream: int = 0, *, dtype: torch.dtype | None = None) -> Tensor:
    """Draw standard normal numbers as a pure function of a key. Arguments and errors as for `uniform`.

    >>> normal(torch.tensor(7), (10_000,)).std().round(decimals=1)
    tensor(1.)
    """
    return math.sqrt(2) * torch.erfinv(2 * uniform(key, shape, stream, dtype=dtype) - 1)


def derive_key(key: Tensor, index: int = 0) -> Tensor:
    """Return another key as a pure function of a key, for a part that shall draw numbers of its own.

    Args:
        key: int64 in [0, 2**62), of any shape.
        index: Selects one of many, at least 0.

    Raises:
        TypeError: If the key is no int64 tensor, or `index` no int.
        ValueError: If `index` is negative.

    >>> bool(derive_key(torch.tensor(7)) == derive_key(torch.tensor(7), 1))
    False
    """
    _check_key(key)
    check_count("index", index, minimum=0)
    low = _mix(_mix(_mix(key & _WORD) ^ (key >> 32)) ^ (index & _WORD))
    return (_mix(low ^ 0x5BD1E995) >> 2 << 32) | low


def draw_keys(
    num_tasks: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw one random key a task, `[num_tasks]` int64, for everything that is random inside a meta-step.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `num_tasks` is negative, or there is no such device.
    """
    check_count("num_tasks", num_tasks, minimum=0, fix="Write draw_keys(25), say.")
    check_generator(generator)
    device = None if device is None else as_device(device)
    source = generator.device if generator is not None else device
    return torch.randint(2**62, (num_tasks,), generator=generator, device=source).to(device or source)


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with a derivative of zero instead of infinity where `x` is zero.

    An update rule that divides by a root needs it: dead units have gradients of zero, and in a second derivative zero
    times infinity is NaN.

    >>> torch.func.grad(lambda x: safe_sqrt(x).sum())(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 0.2500])
    """
    if not isinstance(x, Tensor):
        raise TypeError(invalid("x", "be a tensor", repr(x), "Write torch.tensor(4.0), say."))
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


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
    hot = one_hot(output, target)
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
    right = _without_absent(output, one_hot(output, target), weight).argmax(-1) == target
    return (weight * right).sum() / weight.sum()


def _check_key(key: Any) -> None:
    if not isinstance(key, Tensor) or key.dtype != torch.int64:
        fix = "Write torch.tensor(7), or functional.draw_keys(num_tasks)."
        raise TypeError(invalid("key", "be an int64 tensor", repr(key), fix))


def _check_shape(shape: Any, key: Tensor) -> None:
    sizes: Any = shape if isinstance(shape, tuple | list) else [None]
    if not all(isinstance(size, int | torch.SymInt) and not isinstance(size, bool) for size in sizes):
        raise TypeError(invalid("shape", "be a tuple of ints", repr(shape), "Write (3,), say."))
    pairs = zip(reversed(key.shape), reversed(sizes), strict=False)
    if any(size < 0 for size in sizes) or any(a != b and 1 not in (a, b) for a, b in pairs):
        got = f"{tuple(shape)} for a key of shape {tuple(key.shape)}"
        raise ValueError(invalid("shape", "be of sizes from 0 that broadcast against the key's", got))


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


def one_hot(output: Tensor, target: Tensor) -> Tensor:
    """Return which logit `[num_examples, num_classes]` is each example's own."""
    return target[..., None] == torch.arange(output.shape[-1], device=output.device)


def _without_absent(output: Tensor, hot: Tensor, weight: Tensor) -> Tensor:
    """Return logits of which those of classes without a weighted example are next to minus infinity."""
    present = (hot & (weight > 0)[..., None]).any(-2, keepdim=True)
    return output.masked_fill(~present, torch.finfo(output.dtype).min / 2)  # finite, since it meets weights of zero


@dataclass(frozen=True, eq=False)
class ModelLoss:
    """The loss of a module on a batch as a function of its parameters.

    Calling it as `(params, shared, batch)` gives `criterion(model(batch.x), batch.y)`, with `batch.weight` as a further
    argument where the batch has weights. Weights reach `models.BatchNorm` layers too.

    Attributes:
        model: Any module; `params` replaces its parameters of the same names.
        criterion: `(output, y) -> scalar`, a function or a module.
        name: What the criterion is called: its parameters are `<name>.<parameter>` in `shared`,
            where the model's are `model.<parameter>`.
        num_batches: Number of equal parts that the batch is dealt into; step t sees every `num_batches`-th example,
            starting with example `t % num_batches`.
    """

    model: nn.Module
    criterion: Callable[..., Any]
    name: str = "criterion"
    num_batches: int = 1
    norms: Norms = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_kind("ModelLoss's model", self.model, nn.Module, "an nn.Module", "the module itself")
        check_function("ModelLoss's criterion", self.criterion, fix="Pass F.mse_loss or nn.MSELoss().")
        check_kind("ModelLoss's name", self.name, str, "a string", "'criterion', say")
        check_count("ModelLoss's num_batches", self.num_batches)
        object.__setattr__(self, "norms", Norms.of(self.model))

    def __call__(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        if self.num_batches > 1:
            batch = _part(batch, step % self.num_batches, self.num_batches)
        told = self.norms.told(self.model, batch.weight, step)
        output = call_model(self.model, {**self.model_tensors(params, shared), **told}, batch.x)
        return self.judge(output, batch, shared)

    def on_query(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set, which the support set may help to normalise."""
        tensors = self.model_tensors(params, shared)
        output = predict(self.model, tensors, self.norms, episode.query, episode.support)
        return self.judge(output, episode.query, shared)

    def judge(self, output: Any, batch: Batch, shared: Params) -> Tensor:
        """Return the criterion of what the model has made of a batch."""
        targets = [target for target in (batch.y, batch.weight) if not isinstance(target, tuple) or target]
        if isinstance(self.criterion, nn.Module):
            return functional_call(self.criterion, below(self.name, shared), (output, *targets))
        return self.criterion(output, *targets)

    def model_tensors(self, params: Params, shared: Params) -> Params:
        """Return what replaces the model's own parameters."""
        return {**params, **below("model", shared)}


@dataclass(frozen=True, eq=False)
class ModuleLoss:
    """A module called as a loss of `Problem`, with its parameters taken from `shared`.

    Attributes:
        module: Called as `(params, shared, episode, step)` or `(params, shared, episode)`.
        name: Its parameters are `<name>.<parameter>` in `shared`.
    """

    module: nn.Module
    name: str

    def __post_init__(self) -> None:
        check_kind("ModuleLoss's module", self.module, nn.Module, "an nn.Module", "the module itself")
        check_kind("ModuleLoss's name", self.name, str, "a string", "'query_loss', say")

    def __call__(self, params: Params, shared: Params, *rest: Any) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        return functional_call(self.module, below(self.name, shared), (params, shared, *rest))


@dataclass(frozen=True, eq=False)
class OnSupport:
    """A loss on a batch as a `Problem.support_loss`."""

    loss: ModelLoss

    def __post_init__(self) -> None:
        check_kind("OnSupport's loss", self.loss, ModelLoss, "a ModelLoss", "functional.ModelLoss(model, criterion)")

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss on the support set."""
        return self.loss(params, shared, episode.support, step)

    def whole(self) -> "OnSupport":
        """Return the loss on the whole support set at every step."""
        return OnSupport(replace(self.loss, num_batches=1))


@dataclass(frozen=True, eq=False)
class OnQuery:
    """A loss on a batch as a `Problem.query_loss`."""

    loss: ModelLoss

    def __post_init__(self) -> None:
        check_kind("OnQuery's loss", self.loss, ModelLoss, "a ModelLoss", "functional.ModelLoss(model, criterion)")

    def __call__(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set."""
        return self.loss.on_query(params, shared, episode)


def _part(batch: Batch, index: int, num_parts: int) -> Batch:
    return tree_map(lambda leaf: leaf[index::num_parts], batch)
