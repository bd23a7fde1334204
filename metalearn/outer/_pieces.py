"""Parts of an inner loop as graphs, each for as many steps as it holds for."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from metalearn._step_number import WHICH, Questions, StepNumber, has_same_answers
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._capture import capture, draws, runnable
from metalearn.outer._flattened import Flattened


class Pieces:
    """Parts of a learner's inner loop, each captured and compiled at its first call.

    Args:
        learner: Whose inner loop it is. Constants of its modules are read when graphs run.
        options: Options of inductor; None to run graphs as they are.
    """

    def __init__(self, learner: Any, options: Mapping[str, Any] | None) -> None:
        self.learner, self.options = learner, options
        self._made: dict[Any, list[tuple[Questions, Callable[..., Any]]]] = {}

    def call(self, name: str, step: int, function: Callable[..., Any], *trees: Any) -> Any:
        """Return `function(step, *trees)`.

        Args:
            name: What tells functions apart that compute different things.
            step: Number of the step: all that answer alike to what the function asks share a graph.
            function: Returns a tree of tensors.
            trees: Trees of tensors, the first of them the same at every step.
        """
        # A graph is compiled for strides: those of a start that tasks share are others.
        trees = trees[0], *tree_map(Tensor.contiguous, trees[1:])
        number = torch.full((), step, device=self.learner.device)
        kinds = tuple([(leaf.shape, leaf.stride()) for leaf in tree_leaves(trees)])
        made = self._made.setdefault((name, kinds), [])
        run = next((run for asked, run in made if has_same_answers(step, asked)), None)
        if run is None:
            asked, run = self._compiled(step, function, (number, *trees))
            made.append((asked, run))
        return run((number, *trees))

    def _compiled(
        self, step: int, function: Callable[..., Any], trees: Any
    ) -> tuple[Questions, Callable[..., Any]]:
        asked: Questions = []

        def numbered(number: Tensor, *trees: Any) -> Any:
            return function(StepNumber(step, number, asked), *trees)

        try:
            return asked, _Piece(self, numbered, trees)
        except Exception:  # it may want a real int
            return [(WHICH, (), step)], _Piece(self, lambda _, *rest: function(step, *rest), trees)


class _Piece:
    """A function of trees as a graph."""

    def __init__(self, of: Pieces, function: Callable[..., Any], trees: Any) -> None:
        self._flat = Flattened(of.learner, function, trees)
        tensors = tree_detach(tuple(self._flat.tensors_of(trees)))
        graph, self._others = capture(self._flat, tensors, "piece")
        if draws(graph):
            raise RuntimeError("an inner step that draws must not be taken twice")
        self._run = runnable(graph, [*tensors, *self._others], of.options)

    def __call__(self, trees: Any) -> Any:
        return self._flat.results_of(self._run(*self._flat.tensors_of(trees), *self._others))
