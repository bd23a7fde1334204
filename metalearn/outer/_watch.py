"""What a compiled step was made of, and whether it is still the same."""

from collections.abc import Iterator
from itertools import chain
from operator import call, is_, itemgetter
from typing import Any

import torch.nn as nn

from metalearn._attributes import AT_ONCE, CONTAINERS, OWN, containers
from metalearn._layers import HOOKS, global_hooks
from metalearn._tree import PLAIN


class Watch:
    """Notices whether modules are what they were, by identity, in a few microseconds.

    Modules are compared with what hangs on them, but for the values of tensors: their plain
    attributes, lists, dicts, dataclasses, rules and estimators and what these hold; their classes,
    layers and parameters; names and kinds of buffers; hooks and modes.

    Args:
        learner: The learner, whose own attributes may change, but for its problem and estimator.
        modules: The modules below it.
    """

    def __init__(self, learner: Any, modules: list[nn.Module]) -> None:
        self._learner, self._problem = learner, learner.problem
        self._estimator = learner.estimator
        dicts: list[dict[Any, Any]] = [learner._modules]
        for module in modules:
            dicts += [module._modules, module._parameters]
        held = list(containers(*modules, *self._problem, self._estimator))
        dicts += [each for each in held if isinstance(each, dict)]
        self._lists = [each for each in held if not isinstance(each, dict)]
        # All of this is compared at every call, and so in C.
        self._dicts, self._names = [], []
        for each in dicts:
            if names := [name for name in each if name not in HELD]:
                self._dicts.append(each)
                self._names.append(itemgetter(*names, names[0]))  # of two at least: a tuple
        hooks = [vars(module)[name] for module in modules for name in HOOKS]
        self._sized = [*dicts, *self._lists, *hooks, *global_hooks()]
        self._sizes, self._values = list(map(len, self._sized)), list(self._values_now())
        self._modules = modules
        self._tensors = [own for module in modules for own in (module._parameters, module._buffers)]
        self._kinds = self._kinds_now()

    def is_same(self) -> bool:
        """Return whether all is as it was."""
        try:
            return (
                self._learner.problem is self._problem
                and self._learner.estimator is self._estimator
                and list(map(len, self._sized)) == self._sizes
                and all(map(is_, self._values_now(), self._values))
                and self._kinds_now() == self._kinds
            )
        except KeyError:  # another attribute in the place of one
            return False

    @property
    def settings(self) -> tuple[Any, ...]:
        """The values of plain attributes, and the identities of others, which this keeps alive."""
        return *map(_as_setting, self._values), *self._kinds

    def _kinds_now(self) -> list[Any]:
        kinds: list[Any] = list(map(type, self._modules))
        for own in self._tensors:
            for name, tensor in own.items():
                kinds.append(name)
                if tensor is not None:  # strides too: a graph is compiled for them
                    kinds += tensor.requires_grad, tensor.dtype, tensor.device
                    kinds += tensor.shape, tensor.stride()
        return kinds

    def _values_now(self) -> Iterator[Any]:
        return chain(chain.from_iterable(map(call, self._names, self._dicts)), *self._lists)


HELD = OWN - {"training", "forward"}
"""Attributes of modules that are looked into, or are of no matter."""


def _as_setting(value: Any) -> Any:
    """Return what a value is compared by: 1 is neither 1.0 nor True."""
    if isinstance(value, tuple):
        return type(value), tuple(map(_as_setting, value))
    if isinstance(value, CONTAINERS):
        return type(value)  # whose contents are among the values
    is_plain = type(value) in AT_ONCE or isinstance(value, PLAIN)
    return (type(value), value) if is_plain else id(value)
