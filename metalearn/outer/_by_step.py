"""Inner loops whose steps are compiled one by one, so that compiling takes no longer for more.

A whole meta-step as one graph has every inner step in it. Here one step, one pull-back through it
and the query loss are graphs of their own, and `Stepwise` loops over them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._capture import capture, draws, runnable
from metalearn.outer._flattened import Flattened
from metalearn.outer._over_tasks import choose
from metalearn.outer._step_number import StepNumber
from metalearn.outer._stepwise import InnerLoop, Record, Slopes, Stepwise, Weights
from metalearn.outer._trust import check_agrees
from metalearn.outer._unrolled import Unrolled
from metalearn.outer._wrapper import Wrapper
from metalearn.types import Episode, KeyedLoss, Meta, Params, Problem, PyTree


class Pieces:
    """Parts of a learner's inner loop, each captured and compiled at its first call.

    Args:
        learner: Whose inner loop it is. Constants of its modules are read when graphs run.
        options: Options of inductor; None to run graphs as they are.
    """

    def __init__(self, learner: Any, options: Mapping[str, Any] | None) -> None:
        self.learner, self.options = learner, options
        self._made: dict[Any, Callable[..., Any]] = {}

    def call(self, name: str, step: int, function: Callable[..., Any], *trees: Any) -> Any:
        """Return `function(step, *trees)`.

        Args:
            name: What tells functions apart that compute different things.
            step: Number of the step, of which there is a graph each only if the function asks.
            function: Returns a tree of tensors.
            trees: Trees of tensors, the first two of them the same at every step.
        """
        # A graph is compiled for strides: those of a start that tasks share are others.
        trees = *trees[:2], *tree_map(Tensor.contiguous, trees[2:])
        kinds = tuple([(leaf.shape, leaf.stride()) for leaf in tree_leaves(trees)])
        piece = self._made.get((name, None, kinds)) or self._made.get((name, step, kinds))
        if piece is None:
            piece, asks = self._compiled(step, function, trees)
            self._made[name, step if asks else None, kinds] = piece
        return piece(trees)

    def _compiled(
        self, step: int, function: Callable[..., Any], trees: Any
    ) -> tuple[Callable[..., Any], bool]:
        number = StepNumber(step)
        try:
            piece = _Piece(self, number, function, trees)
        except Exception:  # it may want a real int
            number.is_used = True
        return (_Piece(self, step, function, trees), True) if number.is_used else (piece, False)


class _Piece:
    """A function of a step's number and trees as a graph; none if a `StepNumber` is asked for."""

    def __init__(self, of: Any, step: Any, function: Callable[..., Any], trees: Any) -> None:
        self._flat = Flattened(of.learner, partial(function, step), trees)
        tensors = tree_detach(tuple(self._flat.tensors_of(trees)))
        graph, self._others = capture(self._flat, tensors, "piece")
        if isinstance(step, StepNumber) and step.is_used:
            return
        if draws(graph):
            raise RuntimeError("an inner step that draws must not be taken twice")
        self._run = runnable(graph, [*tensors, *self._others], of.options)

    def __call__(self, trees: Any) -> Any:
        return self._flat.results_of(self._run(*self._flat.tensors_of(trees), *self._others))


@dataclass(frozen=True)
class CompiledStepwise(Stepwise):
    """`Stepwise` whose steps are compiled.

    Args:
        pieces: Where they are kept.
    """

    pieces: Any = field(default=None, compare=False)

    @property
    def traits(self) -> Traits:
        """All tasks at once."""
        return Traits(leafwise=True, repeats_losses=True)

    def task(
        self,
        problem: Problem,
        meta: Meta,
        episode: Episode,
        weights: Weights,
    ) -> InnerLoop:
        """Return the inner loop of one task, or of all at once."""
        return _CompiledLoop(problem, meta, episode, self.order, weights, self.pieces)


@dataclass(frozen=True)
class _CompiledLoop(InnerLoop):
    pieces: Pieces

    def at(self, meta: Meta, episode: Episode, weights: Any = ()) -> InnerLoop:
        """Return the loop with other tensors."""
        return InnerLoop(self.problem, meta, episode, self.order, weights)

    def step(self, params: Params, state: PyTree, step: int) -> Any:
        def function(step: Any, meta: Meta, episode: Episode, params: Params, state: PyTree) -> Any:
            after, constants = self.at(meta, episode).step(params, state, step)
            return after, () if constants is None else constants

        trees = self.meta._replace(init={}), self.episode, params, state
        after, constants = self.pieces.call("step", step, function, *trees)
        return after, constants or None

    def add_loss(self, step: int, params: Params, loss: Any, slopes: Slopes) -> Any:
        weight = self.weights[step]
        if weight is None:
            return loss, slopes

        def function(
            _: Any, meta: Meta, episode: Episode, given: Any, params: Params, loss: Any, slopes: Any
        ) -> Any:
            loop = self.at(meta, episode, {step: given if isinstance(given, Tensor) else weight})
            return loop.add_loss(step, params, loss if isinstance(loss, Tensor) else 0.0, slopes)

        given = weight if isinstance(weight, Tensor) else ()
        so_far = loss if isinstance(loss, Tensor) else ()
        trees = self.meta._replace(init={}), self.episode, given, params, so_far, slopes
        return self.pieces.call("loss", 0, function, *trees)

    def pull_back(self, record: Record, slopes: Slopes) -> Slopes:
        def function(
            step: Any,
            meta: Meta,
            episode: Episode,
            params: Any,
            state: Any,
            constants: Any,
            slopes: Slopes,
        ) -> Slopes:
            record = Record(step, params, state, constants or None)
            return self.at(meta, episode).pull_back(record, slopes)

        trees = self.meta._replace(init={}), self.episode, record.params, record.state
        constants = record.constants or ()
        return self.pieces.call("pull back", record.step, function, *trees, constants, slopes)


def by_step(estimator: MetaGradient, problem: Problem, pieces: Pieces) -> MetaGradient | None:
    """Return an estimator that gives the same to rounding, step by step; None of others.

    Losses that depend on the task's key would hold it in their graphs.
    """
    if isinstance(estimator, Wrapper):
        inside = by_step(estimator.estimator, problem, pieces)
        return None if inside is None else replace(estimator, estimator=inside)
    losses = problem.support_loss, problem.query_loss
    if type(estimator) not in (Unrolled, Stepwise) or any(map(_is_keyed, losses)):
        return None
    theirs: Any = estimator
    segment = getattr(estimator, "segment", None)
    return CompiledStepwise(theirs.order, theirs.truncate, theirs.multi_step, segment, pieces)


def _is_keyed(loss: Any) -> bool:
    return isinstance(loss, KeyedLoss) and getattr(loss, "batches", loss) is not None


class SteppedStep:
    """A function of a learner and trees of tensors whose inner steps are compiled.

    Args:
        function: `(learner, setup, *trees)`; returns a tree of tensors.
        options: Options of inductor; None to run graphs as they are.
        args: Arguments of the kind that it is for.

    Raises:
        NotImplementedError: If the estimator does not go step by step.
        DisagreementError: If it does not compute what the function does.
        Exception: Whatever what is captured raises where tensors have no values.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any] | None,
        args: tuple[Any, ...],
    ) -> None:
        learner, setup, trees = *args[:2], args[2:]
        estimator = by_step(setup.estimator, setup.problem, Pieces(learner, options))
        if estimator is None:
            raise NotImplementedError(f"{setup.estimator} does not go step by step")
        how = choose(estimator, setup.problem, learner.batching, setup.how.own)
        if how.of(len(args[-1])).way == "vmap":
            raise NotImplementedError("losses are vmapped together with the estimator")
        self._function = function
        self._setup = replace(setup, estimator=estimator, how=how)
        of_learner = partial(function, learner)
        flat = Flattened(learner, partial(of_learner, setup), trees)
        stepped = Flattened(learner, partial(of_learner, self._setup), trees)
        tensors = tree_detach(tuple(flat.tensors_of(trees)))
        check_agrees(flat, stepped, tensors, (), as_graph=False)

    def __call__(self, learner: Any, setup: Any, *trees: Any) -> Any:
        """Return what the function returns."""
        return self._function(learner, self._setup, *trees)
