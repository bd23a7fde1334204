"""What a compiled step was made of, and whether it is still the same."""

from collections.abc import Iterator
from itertools import chain
from operator import call, is_, itemgetter
from typing import Any

import torch.nn as nn

from metalearn._attributes import AT_ONCE, OWN, containers
from metalearn._layers import HOOKS, global_hooks
from metalearn._tree import PLAIN


class Watch:
    """Notices whether anything in modules is another object than it was, in a few microseconds.

    Modules are compared with all that hangs on them, but for the values of tensors: what the plain
    attributes hold, their layers and parameters, of which shapes buffers are, hooks, modes.

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
            if len(names := [name for name in each if name not in HELD]):
                self._dicts.append(each)
                self._names.append(itemgetter(*names, names[0]))  # of two at least: a tuple
        hooks = [vars(module)[name] for module in modules for name in HOOKS]
        self._sized = [*dicts, *self._lists, *hooks, *global_hooks()]
        self._sizes, self._values = list(map(len, self._sized)), list(self._values_now())
        self._tensors = [
            own for module in modules for own in (module._parameters, module._buffers) if own
        ]
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
        settings = [value if _is_plain(value) else id(value) for value in self._values]
        return *settings, *self._kinds

    def _kinds_now(self) -> list[Any]:
        # Strides too: a graph is compiled for them.
        return [
            (tensor.requires_grad, tensor.dtype, tensor.device, tensor.shape, tensor.stride())
            for own in self._tensors
            for tensor in own.values()
            if tensor is not None
        ]

    def _values_now(self) -> Iterator[Any]:
        return chain(chain.from_iterable(map(call, self._names, self._dicts)), *self._lists)


HELD = OWN - {"training", "forward"}
"""Attributes of modules that are looked into, or are of no matter."""


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is tuple:
        return all(map(_is_plain, value))
    return kind in AT_ONCE or isinstance(value, PLAIN)
