"""What a compiled step was made of, and whether it is still the same."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, call, is_, itemgetter
from typing import Any

import torch.nn as nn

from metalearn._attributes import AT_ONCE, OWN, containers
from metalearn._layers import HOOKS, global_hooks
from metalearn._tree import PLAIN


class Watch:
    """Notices whether anything in modules is another object than it was, in a few microseconds.

    Modules are compared with all that hangs on them, but for the values of tensors and the numbers
    of buffers: what the plain attributes hold, their layers and parameters, hooks, modes.

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
        params = (param for module in modules for param in module._parameters.values())
        self._params = [param for param in params if param is not None]
        self._kinds = list(map(KIND, self._params))

    def is_same(self) -> bool:
        """Return whether all is as it was."""
        try:
            return (
                self._learner.problem is self._problem
                and self._learner.estimator is self._estimator
                and list(map(len, self._sized)) == self._sizes
                and all(map(is_, self._values_now(), self._values))
                and list(map(KIND, self._params)) == self._kinds
            )
        except KeyError:  # another attribute in the place of one
            return False

    @property
    def settings(self) -> tuple[Any, ...]:
        """The values of plain attributes, and the identities of others, which this keeps alive."""
        return tuple([value if _is_plain(value) else id(value) for value in self._values])

    def _values_now(self) -> Iterator[Any]:
        return chain(chain.from_iterable(map(call, self._names, self._dicts)), *self._lists)


KIND = attrgetter("requires_grad", "dtype", "device")
HELD = OWN - {"training", "forward"}
"""Attributes of modules that are looked into, or are of no matter."""


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is tuple:
        return all(map(_is_plain, value))
    return kind in AT_ONCE or isinstance(value, PLAIN)
