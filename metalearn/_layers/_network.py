"""A model as a function of tensors in place of its own, for one task or for all at once."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._blocks import has_blocks
from metalearn._brief import brief
from metalearn._checks import invalid
from metalearn._layers._memo import Memo
from metalearn._layers._sequence import Inputs, Layers
from metalearn._modes import in_transform
from metalearn._modules import Call, call_model, functional_call
from metalearn._tree import tree_leaves, tree_map
from metalearn.models._batch_norm import Norms
from metalearn.types import Batch, Params


@dataclass(frozen=True, eq=False)
class Network:
    """A model whose layers are not known: it is called, and vmapped for many tasks.

    Attributes:
        model: The model.
        call: How it is called with other tensors than its own.
        output: What of its outputs is seen: the name of a field, or a function of them; None for
            all.
        norms: What a call has to tell its normalisation layers.
    """

    model: nn.Module
    call: Call = functional_call
    output: str | Callable[[Any], Any] | None = None
    norms: Norms = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", Norms.of(self.model))

    @staticmethod
    def of(
        model: nn.Module,
        call: Call = functional_call,
        output: str | Callable[[Any], Any] | None = None,
    ) -> "Network":
        """Return the model as a network, of known layers where it is a sequence of such."""
        if call is not functional_call or output is not None:
            return Network(model, call, output)
        layers = Layers.of(model)
        return Network(model) if layers is None else KnownNetwork(model, layers=layers)

    def __call__(
        self, tensors: Params, batch: Batch, support: Batch | None = None, step: int | None = None
    ) -> Any:
        """Return the outputs for one task's examples.

        Args:
            tensors: What takes the place of parameters of these names.
            batch: The examples.
            support: The support set of query examples, which layers may normalise them by.
            step: Number of the inner step.
        """
        if support is None or not self.norms.by_support:
            return self._called(tensors, batch.x, batch.weight, step)
        first, second = tree_leaves(support.x)[0], tree_leaves(batch.x)[0]
        is_weighted = isinstance(support.weight, Tensor)
        weight = support.weight if is_weighted else torch.ones(len(first), device=first.device)
        weight = torch.cat([weight, weight.new_zeros(len(second))])
        both = tree_map(lambda *leaves: torch.cat(leaves), support.x, batch.x)
        outputs = self._called(tensors, both, weight, step)
        return tree_map(partial(_of_query, len(first), len(first) + len(second)), outputs)

    def of_tasks(
        self,
        tensors: Params,
        batch: Batch,
        support: Batch | None = None,
        fast: Container[str] = (),
        memo: Memo | None = None,
    ) -> Tensor:
        """Return the outputs for all tasks' examples that it `knows`, without `vmap`.

        Args:
            tensors: What takes the place of parameters of these names, with a leading task axis or
                the same for all tasks.
            batch: The examples, with a leading task axis.
            support: The support sets of query examples.
            fast: Names of the parameters that an inner loop changes.
            memo: Of what layers without such made of their inputs at the last call.
        """
        raise NotImplementedError("a network of unknown layers is vmapped: ask `knows`")

    def knows(self, batch: Batch, support: Batch | None, axis: int = 1) -> bool:
        """Return whether its layers are known and take examples behind so many axes of tasks."""
        return False

    def unchanged(self) -> "Network":
        """Return a network that need not look whether the model's layers are as they were."""
        return self

    def _called(self, tensors: Params, x: Any, weight: Any, step: int | None) -> Any:
        buffers = self.norms.buffers(self.model, weight, step)
        tensors = {**tensors, **buffers} if buffers else tensors
        return self.seen(call_model(self.model, tensors, x, self.call))

    def seen(self, outputs: Any) -> Any:
        """Return what is seen of the model's outputs.

        Raises:
            ValueError: If they have no field of that name.
        """
        if not isinstance(self.output, str):
            return outputs if self.output is None else self.output(outputs)
        return field_of(outputs, self.output)


def field_of(outputs: Any, name: str) -> Any:
    """Return a field of a model's outputs: an entry of a dict, or an attribute.

    Raises:
        ValueError: If there is none.
    """
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    if found is None:
        is_mapping = isinstance(outputs, Mapping)
        got = f"those with {list(outputs)}" if is_mapping else type(outputs).__name__
        fix = 'Pass labels too: Batch({"input_ids": ids, "labels": labels}).'
        if isinstance(outputs, Tensor):
            fix = f"Leave output={name!r} out: they are a tensor."
        elif name != "loss":
            fix = "Name another field, or write a function of the outputs."
        raise invalid("the model's outputs", f"have {name!r}", got, fix)
    return found


@dataclass(frozen=True, eq=False)
class KnownNetwork(Network):
    """A sequence of known layers, which are computed here for inputs that suit them.

    Attributes:
        layers: The layers.
    """

    layers: Layers = field(default=None)  # type: ignore[assignment]

    def __call__(
        self, tensors: Params, batch: Batch, support: Batch | None = None, step: int | None = None
    ) -> Any:
        """Return the outputs for one task's examples."""
        if self.knows(batch, support, 0):
            return self._through(tensors, batch, support, 0)
        return super().__call__(tensors, batch, support, step)

    def of_tasks(
        self,
        tensors: Params,
        batch: Batch,
        support: Batch | None = None,
        fast: Container[str] = (),
        memo: Memo | None = None,
    ) -> Tensor:
        """Return the outputs for all tasks' examples that it `knows`, without `vmap`."""
        return self._through(tensors, batch, support, 1, fast, memo)

    def unchanged(self) -> Network:
        """Return a network that need not look whether the model's layers are as they were."""
        if not self.layers.are_as_they_were():  # or have hooks
            return Network(self.model, self.call)
        return KnownNetwork(self.model, self.call, layers=self.layers.unchanged())

    def knows(self, batch: Batch, support: Batch | None, axis: int = 1) -> bool:
        """Return whether outputs depend on tensors and `x` alone, which suit the layers."""
        if (
            in_transform()
            or has_blocks()
            or isinstance(batch.weight, Tensor)
            or not self.layers.take(batch.x, axis)
        ):
            return False
        if support is None or not self.norms.by_support:
            return True
        return isinstance(support.x, Tensor) and not isinstance(support.weight, Tensor)

    def _through(
        self,
        tensors: Params,
        batch: Batch,
        support: Batch | None,
        axis: int,
        fast: Container[str] = (),
        memo: Memo | None = None,
    ) -> Tensor:
        if support is None or not self.norms.by_support:
            return self.layers(tensors, batch.x, Inputs(bool(axis)), fast, memo)
        both, num_support = torch.cat([support.x, batch.x], axis), support.x.shape[axis]
        output = self.layers(tensors, both, Inputs(bool(axis), num_support), fast, memo)
        return output.narrow(axis, num_support, batch.x.shape[axis])


def _of_query(num_support: int, num_examples: int, output: Any) -> Any:
    """Return the query's part of an output for support and query examples."""
    if not isinstance(output, Tensor):
        return output
    if not output.dim() or len(output) != num_examples:
        fix = "Return no other, or use 'transductive'."
        what = "outputs of a model normalised by its support set"
        raise invalid(what, "begin with the axis of examples", brief(output), fix)
    return output[num_support:]
