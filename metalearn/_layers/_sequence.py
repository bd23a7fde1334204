"""A sequence of known layers as a function of its parameters, for one task or for all at once."""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from metalearn._layers._convolution import convolve
from metalearn._layers._fold import Geometry, fold, unfold
from metalearn._layers._memo import Memo
from metalearn._layers._normalisation import normalise, other_axes
from metalearn._walk import each_module
from metalearn.models._batch_norm import BatchNorm, SupportNorm

OWN = ("weight", "bias")


class Inputs(NamedTuple):
    """What the inputs of a layer are.

    Attributes:
        of_tasks: Whether they are of all tasks. Then all tensors have a leading task axis, but for
            weights and biases that all tasks share.
        num_support: Number of first examples that are the support set, by which others may be
            normalised; None if all of them count.
    """

    of_tasks: bool
    num_support: int | None = None


Compute = Callable[[Any, Any, Any, Tensor, Inputs], Tensor]
"""From a layer, its weight and bias, its input and what that is, to its output."""


@dataclass(frozen=True, eq=False)
class Layers:
    """A model whose layers are all known, computed without `vmap` or `functional_call`.

    Attributes:
        model: The model.
        steps: Its layers in their order: what computes each, the layer, and its name followed by a
            dot.
        images: Whether one of them is for images `[n, C, H, W]`.
        is_trusted: Whether somebody else looks that the layers are as they were.
    """

    model: nn.Module
    steps: tuple[tuple[Compute, nn.Module, str], ...]
    images: bool
    is_trusted: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> "Layers | None":
        """Return the model's layers if they are known, and each parameter has one name."""
        steps = tuple((layer_of(layer), layer, prefix) for layer, prefix in _in_order(model, ""))
        owned = {
            prefix + name: param
            for _, layer, prefix in steps
            for name, param in layer.named_parameters()
        }
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        objects = {id(each) for each in (*(layer for _, layer, _ in steps), *owned.values())}
        if not steps or names != list(owned) or len(objects) < len(steps) + len(owned):
            return None
        if not all(compute for compute, *_ in steps):
            return None
        return cls(model, steps, any(compute in IMAGES for compute, *_ in steps))

    def take(self, x: Any, of_tasks: int) -> bool:
        """Return whether these inputs suit the layers, which are as they were and have no hooks."""
        dims = x.dim() - of_tasks if isinstance(x, Tensor) and x.layout == torch.strided else 0
        suits = dims == 4 if self.images else dims >= 2
        return suits and (self.is_trusted or self.are_as_they_were())

    def unchanged(self) -> "Layers":
        """Return layers that need not look whether they are as they were."""
        return replace(self, is_trusted=True)

    def are_as_they_were(self) -> bool:
        """Return whether these are still the model's layers, and do what their classes say."""
        now = tuple((layer_of(layer), layer, prefix) for layer, prefix in _in_order(self.model, ""))
        is_as_said = not has_global_hooks() and not any(map(is_changed, each_module(self.model)))
        return now == self.steps and is_as_said

    def __call__(
        self,
        tensors: dict[str, Tensor],
        x: Tensor,
        inputs: Inputs,
        fast: Container[str] = (),
        memo: Memo | None = None,
    ) -> Tensor:
        """Return the model's output.

        Args:
            tensors: What takes the place of parameters of these names.
            x: Inputs `[n, ...]`, or `[num_tasks, n, ...]` of all tasks.
            inputs: Which of these, and which examples are the support set.
            fast: Names of the parameters that an inner loop changes.
            memo: Of what the layers before those made of their inputs at the last call.
        """
        weights = self._weights(tensors)

        def through(x: Tensor, first: int, last: int) -> Tensor:
            for (compute, layer, _), own in zip(
                self.steps[first:last], weights[first:last], strict=True
            ):
                x = compute(layer, own[0], own[1], x, inputs)
            return x

        if memo is None or not (count := self._num_before(fast)):
            return through(x, 0, len(self.steps))
        read = [x, *(tensor for own in weights[:count] for tensor in own if tensor is not None)]
        return through(memo.recall(read, partial(through, x, 0, count)), count, len(self.steps))

    def _weights(self, tensors: dict[str, Tensor]) -> list[list[Tensor | None]]:
        """Return weight and bias of each layer: given ones, or the layer's own."""
        weights = []
        for _, layer, prefix in self.steps:
            of_layer = []
            for own in OWN:
                tensor = tensors.get(prefix + own)
                if tensor is None:  # getattr would take a call for a module without one
                    tensor = layer._parameters.get(own)
                of_layer.append(layer._buffers.get(own) if tensor is None else tensor)
            weights.append(of_layer)
        return weights

    def _num_before(self, fast: Container[str]) -> int:
        """Return the number of layers before the first with a fast parameter."""
        for index, (_, _, prefix) in enumerate(self.steps):
            for own in OWN:
                if prefix + own in fast:
                    return index
        return len(self.steps)


def _in_order(module: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, str]]:
    """Yield the layers of a sequence, and of sequences in it, with their names."""
    if type(module) is not nn.Sequential:
        yield module, prefix
        return
    for name, child in module._modules.items():  # `named_children` leaves out what comes twice
        yield from _in_order(child, f"{prefix}{name}.")


def global_hooks() -> list[Any]:
    """Return the hooks that are registered for all modules, by kind."""
    return [getattr(nn.modules.module, f"_global{hooks}") for hooks in HOOKS]


def has_global_hooks() -> bool:
    """Return whether hooks are registered for all modules."""
    return any(global_hooks())


def is_changed(module: nn.Module) -> bool:
    """Return whether calling a module does something else than its class says."""
    own = vars(module)
    return "forward" in own or any(own[hooks] for hooks in HOOKS)


def _linear(layer: Any, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    if weight.dim() == 2:
        shared = bias is None or bias.dim() == 1
        y = F.linear(x, weight, bias if shared else None)
        return y if shared else y + bias.reshape(len(bias), *[1] * (y.dim() - 2), -1)
    rows, weight = x.flatten(1, -2), weight.mT
    if bias is None:
        y = torch.bmm(rows, weight)
    else:
        y = torch.baddbmm(bias if bias.dim() == 1 else bias[:, None], rows, weight)
    return y if x.dim() == 3 else y.unflatten(1, x.shape[1:-1])


def _convolution(layer: Any, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.groups)
    if not inputs.of_tasks:
        return convolve(x, weight, bias, geometry)
    if weight.dim() == 4 and (bias is None or bias.dim() == 1):
        return convolve(x.flatten(0, 1), weight, bias, geometry).unflatten(0, x.shape[:2])
    y = convolve(
        fold(x), _each(weight, 4, len(x)), _each(bias, 1, len(x)), geometry.of_tasks(len(x))
    )
    return unfold(y, len(x))


def _norm(layer: _BatchNorm, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    layer._check_input_dim(x[0] if inputs.of_tasks else x)
    if not inputs.of_tasks:
        return normalise(x, weight, bias, layer.eps)
    return unfold(
        normalise(fold(x), _each(weight, 1, len(x)), _each(bias, 1, len(x)), layer.eps), len(x)
    )


def _norm_by_support(layer: BatchNorm, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    if inputs.num_support is None:
        return _norm(layer, weight, bias, x, inputs)
    if inputs.of_tasks:
        weight, bias = _each(weight, 1, len(x)), _each(bias, 1, len(x))
        return unfold(
            _norm_by_support(layer, weight, bias, fold(x), inputs._replace(of_tasks=False)), len(x)
        )
    support, query = x.tensor_split([inputs.num_support])
    precise = support.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(precise, other_axes(x), correction=0)
    return torch.cat(
        [normalise(support, weight, bias, layer.eps), layer.scaled(query, mean, var, weight, bias)]
    )


def _pool(layer: nn.Module, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    return unfold(layer.forward(fold(x)), len(x)) if inputs.of_tasks else layer.forward(x)


def _mean(layer: nn.Module, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    return x.mean((-2, -1), keepdim=True)


def _flatten(layer: nn.Module, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    return x.flatten(1 + inputs.of_tasks)


def _elementwise(layer: nn.Module, weight: Any, bias: Any, x: Tensor, inputs: Inputs) -> Tensor:
    return layer.forward(x)  # it has no hooks


def _each(param: Any, dims: int, num_tasks: int) -> Any:
    """Return the tasks' parameters of so many dimensions, one after the other along the first."""
    if param is None:
        return None
    return (param if param.dim() > dims else param.expand(num_tasks, *param.shape)).flatten(0, 1)


def layer_of(layer: nn.Module) -> Any:
    """Return what computes a layer, None if nothing here does."""
    compute, suits = KNOWN.get(type(layer), (None, None))
    return compute if suits is None or suits(layer) else None


def _is_padded_by_zeros(layer: Any) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _is_by_batch(layer: Any) -> bool:
    weighted = isinstance(layer, BatchNorm) and layer.example_weight.numel() > 0
    return layer.running_mean is None and layer.running_var is None and not weighted


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
IMAGES = (_convolution, _pool, _mean)
ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
KNOWN: dict[type[nn.Module], tuple[Compute, Callable[[Any], bool] | None]] = {
    nn.Linear: (_linear, None),
    nn.Conv2d: (_convolution, _is_padded_by_zeros),
    nn.MaxPool2d: (_pool, lambda layer: not layer.return_indices),
    nn.AvgPool2d: (_pool, None),
    nn.AdaptiveAvgPool2d: (_mean, lambda layer: layer.output_size in (1, (1, 1), [1, 1])),
    nn.Flatten: (_flatten, lambda layer: (layer.start_dim, layer.end_dim) == (1, -1)),
    **dict.fromkeys(NORMS, (_norm, _is_by_batch)),
    **dict.fromkeys((BatchNorm, SupportNorm), (_norm_by_support, _is_by_batch)),
    **dict.fromkeys(ELEMENTWISE, (_elementwise, None)),
}
"""What computes layers of which class, and what must hold of a layer."""
