"""A learner's step captured as a flat graph and compiled, compared with an eager one before use."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from metalearn._attributes import attributes_kept
from metalearn._tree import tree_detach, tree_filled, tree_leaves, tree_map
from metalearn._walk import modules_of, parts_of
from metalearn.outer._capture import Flat, capture, compiled, fastest_options, in_own_precision
from metalearn.outer._trust import disagreement

LOG = logging.getLogger("metalearn")
Place = tuple[dict[str, Any], str]
"""A module's dict of parameters or buffers, and a name in it."""


class DisagreementError(RuntimeError):
    """A compiled step does not compute what an eager one does."""


class CapturedStep:
    """A function of a learner and trees of tensors, compiled for trees of one kind.

    Constants of the learner's modules are arguments of the graph as well: their values are read
    when it runs.

    Args:
        function: `(learner, setup, *trees)`; returns a tree of tensors.
        options: Options of inductor; None to run the graph as it is.
        args: Arguments of the kind that it is for.
        num_written: Number of the first trees whose tensors the function writes to.

    Raises:
        DisagreementError: If it does not compute what the function does.
        Exception: Whatever what is captured raises where tensors have no values.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any] | None,
        args: tuple[Any, ...],
        num_written: int = 0,
    ) -> None:
        LOG.info("compiling the meta-step, which may take minutes")
        began = time.perf_counter()
        learner, setup, *trees = args
        self._places = _constants(learner)
        given = tree_detach(tree_leaves(trees))
        tensors = [*given, *(owner[name].detach() for owner, name in self._places)]

        def flat(*tensors: Tensor) -> list[Tensor]:
            with _put(self._places, tensors[len(given) :]), attributes_kept(*parts_of(learner)):
                result = function(learner, setup, *tree_filled(tuple(trees), tensors))
            self._template = tree_map(lambda leaf: 0, result)
            # As autograd keeps gradients: it would copy others.
            return [leaf.contiguous() for leaf in tree_leaves(result)]

        graph, self._others = capture(flat, tensors)
        run: Flat = graph
        if options is not None:
            options = {**fastest_options(learner.device), **options}
            run = compiled(graph, [*tensors, *self._others], options)
        self._run = in_own_precision(run)
        written = len(tree_leaves(trees[:num_written]))
        if difference := disagreement(flat, self._run, tensors, self._others, written):
            raise DisagreementError(difference)
        LOG.info("compiled the meta-step in %.1f s", time.perf_counter() - began)

    def __call__(self, learner: Any, setup: Any, *trees: Any) -> Any:
        """Return what the function returns."""
        tensors = tree_leaves(trees)
        for owner, name in self._places:
            tensors.append(owner[name])
        return tree_filled(self._template, self._run(*tensors, *self._others))


def _constants(learner: Any) -> list[Place]:
    """Return the places of all tensors of a learner's modules but of those that are learned."""
    learned = {id(tensor) for tensor in tree_leaves(learner.meta)}
    return [
        (own, name)
        for module in modules_of(learner)
        for own in (module._parameters, module._buffers)
        for name, tensor in own.items()
        if tensor is not None and id(tensor) not in learned
    ]


@contextmanager
def _put(places: list[Place], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put tensors into modules for as long as the context lasts."""
    own = [owner[name] for owner, name in places]
    try:
        for (owner, name), tensor in zip(places, tensors, strict=True):
            owner[name] = tensor
        yield
    finally:
        for (owner, name), tensor in zip(places, own, strict=True):
            owner[name] = tensor
