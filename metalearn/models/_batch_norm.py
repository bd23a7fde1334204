"""Batch normalisation with explicit sources of statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from metalearn._brief import brief
from metalearn._checks import (
    check_bool,
    check_count,
    check_fraction,
    check_positive,
    invalid,
    mistyped,
)
from metalearn._step_number import row_of_step
from metalearn._walk import each_module


class BatchNorm(_BatchNorm):
    """Batch normalisation of `[n, C, ...]` by the batch's own statistics, in either mode.

    Layers receive what a call tells them as buffers that `functional_call` replaces, so that
    outputs depend on arguments alone: under `vmap`, `torch.compile` and in every derivative.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance.
        affine: Whether the result is scaled and shifted by learned parameters.

    Attributes:
        example_weight: Weights `[n]` of the examples in the statistics; empty for equal weights.
    """

    statistics: ClassVar[str] = "transductive"
    num_rows = 0
    example_weight: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        own = type(self).__name__
        check_count(f"{own}'s num_features", num_features)
        check_positive(f"{own}'s eps", eps)
        check_bool(f"{own}'s affine", affine)
        super().__init__(num_features, eps, affine=affine, track_running_stats=False)
        self.register_buffer("example_weight", torch.empty(0), persistent=False)

    def _check_input_dim(self, input: Any) -> None:
        """Raise unless the inputs are a floating tensor `[n, C, ...]`."""
        if not (isinstance(input, Tensor) and input.is_floating_point()):
            got = input.dtype if isinstance(input, Tensor) else brief(input)
            raise mistyped("inputs of batch normalisation", "be a floating tensor", got)
        if input.dim() < 2 or input.shape[1] != self.num_features or not input.numel():
            condition = f"be [n, {self.num_features}, ...], none of them empty"
            raise invalid("inputs of batch normalisation", condition, f"shape {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs."""
        self._check_input_dim(x)
        return self.by_batch(x, self.weight, self.bias)

    def by_batch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return inputs normalised by their own statistics."""
        if not self.example_weight.numel():
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
        return self.scaled(x, *moments(x, self.example_weight), weight, bias)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights `[n]` of the examples."""
        return self.example_weight if self.example_weight.numel() else x.new_ones(len(x))

    def scaled(
        self, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """Return inputs normalised by the given statistics `[C]`, differentiably."""
        axes = (-1, *(1 for _ in x.shape[2:]))
        scale = (var + self.eps).rsqrt()
        scale = scale if weight is None else scale * weight
        result = (x - mean.reshape(axes)) * scale.reshape(axes)
        return (result if bias is None else result + bias.reshape(axes)).to(x.dtype)


class SupportNorm(BatchNorm):
    """Batch normalisation of query examples by the statistics of the support set.

    A learner's query loss runs the model on support and query examples together, the latter with
    weights of zero.
    """

    statistics: ClassVar[str] = "support"


class FrozenNorm(BatchNorm):
    """Batch normalisation by fixed statistics, such as those of a pretrained model.

    Attributes:
        mean: Mean `[C]`.
        var: Variance `[C]`.
    """

    statistics: ClassVar[str] = "frozen"
    mean: Tensor
    var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(num_features, eps, affine)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs."""
        self._check_input_dim(x)
        return self.scaled(x, self.mean, self.var, self.weight, self.bias)


class PerStepNorm(BatchNorm):
    """Batch normalisation with affine parameters and running statistics for every inner step.

    Row t belongs to the network before step t, the last row to the adapted network. Support sets
    are always normalised by themselves, so that adaptation is the same in training and evaluation.
    Query batches are normalised by themselves in training mode, where a learner's steps update the
    running statistics, and by these in evaluation mode.

    Args:
        num_features: Number of channels C.
        num_steps: Number of inner steps; later steps use the last row.
        eps: Added to the variance.
        affine: Whether there are affine parameters, `[num_steps + 1, C]`.
        momentum: Weight of a new batch in the running statistics.

    Attributes:
        mean: Running means `[num_steps + 1, C]`.
        var: Running variances `[num_steps + 1, C]`.
        at_step: The row of a support pass, one-hot `[num_steps + 1]`; empty for a query pass.
        tracking: Whether a call updates the running statistics.

    References:
        Antoniou et al., "How to train your MAML", ICLR 2019.
    """

    statistics: ClassVar[str] = "per_step"
    mean: Tensor
    var: Tensor
    at_step: Tensor

    def __init__(
        self,
        num_features: int,
        num_steps: int,
        eps: float = 1e-5,
        affine: bool = True,
        momentum: float = 0.1,
    ) -> None:
        check_count("PerStepNorm's num_steps", num_steps)
        check_fraction("PerStepNorm's momentum", momentum)
        super().__init__(num_features, eps, affine)
        rows = self.num_rows = num_steps + 1
        self.share, self.tracking = momentum, False
        if affine:
            self.weight = nn.Parameter(torch.ones(rows, num_features))
            self.bias = nn.Parameter(torch.zeros(rows, num_features))
        self.register_buffer("mean", torch.zeros(rows, num_features))
        self.register_buffer("var", torch.ones(rows, num_features))
        self.register_buffer("at_step", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs."""
        self._check_input_dim(x)
        weight = None if self.weight is None else self._row(self.weight)
        bias = None if self.bias is None else self._row(self.bias)
        if not self.training and not self.at_step.numel():
            return self.scaled(x, self._row(self.mean), self._row(self.var), weight, bias)
        if self.tracking:
            self._track(x.detach())
        return self.by_batch(x, weight, bias)

    def _row(self, rows: Tensor) -> Tensor:
        # A product compiles and vmaps, while an index would need the step's value.
        return (self.at_step[:, None] * rows).sum(0) if self.at_step.numel() else rows[-1]

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        """Move the row's running mean and unbiased variance towards the batch's, if finite."""
        weight, row = self.weights(x), int(self.at_step.argmax()) if self.at_step.numel() else -1
        mean, var = moments(x, weight)
        count = int((weight > 0).sum()) * x[0, 0].numel()
        if mean.isfinite().all() and var.isfinite().all():
            self.mean[row] += self.share * (mean - self.mean[row])
            self.var[row] += self.share * (var * count / max(count - 1, 1) - self.var[row])


@contextmanager
def tracking(model: nn.Module) -> Iterator[None]:
    """Let calls in training mode update the running statistics of inner steps."""
    norms = [module for module in model.modules() if isinstance(module, PerStepNorm)]
    for norm in norms:
        norm.tracking = True
    try:
        yield
    finally:
        for norm in norms:
            norm.tracking = False


def moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return weighted mean and variance `[C]` of inputs `[n, C, ...]`, in float32 or more."""
    precise = torch.promote_types(x.dtype, torch.float32)
    x, weight = x.to(precise), weight.to(precise)
    share = (weight / weight.sum())[:, None]

    def average(x: Tensor) -> Tensor:
        return (share * (x.flatten(2).mean(2) if x.dim() > 2 else x)).sum(0)

    mean = average(x)
    return mean, average((x - mean.reshape(-1, *(1 for _ in x.shape[2:]))) ** 2)


@dataclass(frozen=True)
class Norms:
    """The normalisation layers of a model, and what a call tells them.

    Attributes:
        rows: The layers' names, each with its number of rows for inner steps, 0 if it has none.
        by_support: Whether a layer normalises query examples by the support set.
    """

    rows: tuple[tuple[str, int], ...]
    by_support: bool

    @classmethod
    def of(cls, model: nn.Module) -> "Norms":
        """Find a model's layers."""
        if not any(isinstance(module, BatchNorm) for module in each_module(model)):
            return cls((), False)
        norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, BatchNorm)}
        by_support = any(isinstance(norm, SupportNorm) for norm in norms.values())
        return cls(tuple((name, norm.num_rows) for name, norm in norms.items()), by_support)

    @property
    def by_step(self) -> bool:
        """Whether a layer has separate statistics for every inner step."""
        return any(rows for _, rows in self.rows)

    def buffers(
        self, model: nn.Module, weight: Tensor | tuple[()] = (), step: int | None = None
    ) -> dict[str, Tensor]:
        """Return the buffers that tell the layers the examples' weights `[n]` and the step."""
        buffers = {}
        for name, rows in self.rows:
            prefix = f"{name}." if name else ""
            if isinstance(weight, Tensor):
                buffers[f"{prefix}example_weight"] = weight
            if rows and step is not None:
                at_step: Any = model.get_submodule(name).at_step
                one_hot = torch.eye(rows, dtype=at_step.dtype, device=at_step.device)
                buffers[f"{prefix}at_step"] = row_of_step(one_hot, step)
        return buffers
