"""A learner's step captured as a flat graph and compiled, compared with an eager one before use."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from metalearn._tree import tree_detach, tree_leaves
from metalearn.outer._capture import capture, runnable
from metalearn.outer._flattened import Flattened
from metalearn.outer._trust import check_agrees

LOG = logging.getLogger("metalearn")


class CapturedStep:
    """A function of a learner and trees of tensors, compiled for trees of one kind.

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
        learner, setup, trees = *args[:2], args[2:]
        self._flat = Flattened(learner, partial(function, learner, setup), trees)
        tensors = tree_detach(tuple(self._flat.tensors_of(trees)))
        graph, self._others = capture(self._flat, tensors)
        self._run = runnable(graph, [*tensors, *self._others], options)
        written = len(tree_leaves(trees[:num_written]))
        check_agrees(self._flat, self._run, tensors, self._others, written)
        LOG.info("compiled the meta-step in %.1f s", time.perf_counter() - began)

    def __call__(self, learner: Any, setup: Any, *trees: Any) -> Any:
        """Return what the function returns."""
        return self._flat.results_of(self._run(*self._flat.tensors_of(trees), *self._others))
