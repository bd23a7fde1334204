"""Inner loops whose steps are compiled one by one, so that compiling takes no longer for more.

A whole meta-step as one graph has every inner step in it. Here one step, one pull-back through it
and the query loss are graphs of their own, and `Stepwise` loops over them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from metalearn._tree import tree_detach
from metalearn.functional import OnSupport
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._flattened import Flattened
from metalearn.outer._over_tasks import choose
from metalearn.outer._pieces import Pieces
from metalearn.outer._stepwise import InnerLoop, Record, Slopes, Stepwise, Weights
from metalearn.outer._trust import check_agrees
from metalearn.outer._unrolled import Unrolled
from metalearn.outer._wrapper import Wrapper
from metalearn.types import Batch, Episode, KeyedLoss, Meta, Params, Problem, PyTree


class Given(NamedTuple):
    """The tensors of an inner loop that are the same at every step.

    Attributes:
        meta: What is learned, but for the start.
        episode: The task, or all of them.
    """

    meta: Meta
    episode: Episode


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
        problem, batch_of = _of_seen(problem)
        return _CompiledLoop(problem, meta, episode, self.order, weights, self.pieces, batch_of)


@dataclass(frozen=True)
class _CompiledLoop(InnerLoop):
    pieces: Pieces
    batch_of: Callable[[Episode, int], Batch]

    @property
    def given(self) -> Given:
        """The tensors that are the same at every step."""
        return Given(self.meta._replace(init={}), self.episode)

    def seen(self, step: int) -> Given:
        """Return these tensors with what a step sees of the support set."""
        support = self.batch_of(self.episode, step)
        return Given(self.meta._replace(init={}), self.episode._replace(support=support))

    def at(self, given: Given, weights: Any = ()) -> InnerLoop:
        """Return the loop with other tensors."""
        return InnerLoop(self.problem, *given, self.order, weights)

    def step(self, params: Params, state: PyTree, step: int) -> Any:
        def function(step: Any, given: Given, params: Params, state: PyTree) -> Any:
            after, constants = self.at(given).step(params, state, step)
            return after, () if constants is None else constants

        after, constants = self.pieces.call("step", step, function, self.seen(step), params, state)
        return after, constants or None

    def add_loss(self, step: int, params: Params, loss: Any, slopes: Slopes) -> Any:
        weight = self.weights[step]
        if weight is None:
            return loss, slopes

        def function(
            _: Any, given: Given, own: Any, params: Params, loss: Any, slopes: Slopes
        ) -> Any:
            loop = self.at(given, {step: own if isinstance(own, Tensor) else weight})
            return loop.add_loss(step, params, loss if isinstance(loss, Tensor) else 0.0, slopes)

        own = weight if isinstance(weight, Tensor) else ()
        so_far = loss if isinstance(loss, Tensor) else ()
        return self.pieces.call("loss", 0, function, self.given, own, params, so_far, slopes)

    def pull_back(self, record: Record, slopes: Slopes) -> Slopes:
        nothing = record.draws  # or it would not be compiled

        def function(
            step: Any, given: Given, params: Any, state: Any, constants: Any, slopes: Slopes
        ) -> Slopes:
            record = Record(step, params, state, constants or None, nothing)
            return self.at(given).pull_back(record, slopes)

        seen, constants = self.seen(record.step), record.constants or ()
        trees = seen, record.params, record.state, constants, slopes
        return self.pieces.call("pull back", record.step, function, *trees)


def by_step(
    estimator: MetaGradient, problem: Problem, made: Callable[..., Stepwise]
) -> MetaGradient | None:
    """Return an estimator that gives the same to rounding, step by step; None of others.

    Losses of the user's that depend on the task's key would hold it in their graphs.

    Args:
        estimator: The estimator.
        problem: What the inner loop minimises and the outer loop judges.
        made: `Stepwise`, or what takes its arguments.
    """
    if isinstance(estimator, Wrapper):
        inside = by_step(estimator.estimator, problem, made)
        return None if inside is None else replace(estimator, estimator=inside)
    losses = problem.support_loss, problem.query_loss
    if type(estimator) not in (Unrolled, Stepwise) or any(map(_is_keyed, losses)):
        return None
    if getattr(estimator, "blocks", None) is not None:  # which are computed again by themselves
        return None
    theirs: Any = estimator
    segment = getattr(estimator, "segment", None)
    options = theirs.order, theirs.truncate, theirs.multi_step, segment
    return made(*options)


def _is_keyed(loss: Any) -> bool:
    return isinstance(loss, KeyedLoss) and not isinstance(loss, OnSupport)


def _of_seen(problem: Problem) -> tuple[Problem, Callable[[Episode, int], Batch]]:
    """Return a problem whose steps are given what they see, and the function that says what."""
    loss: Any = problem.support_loss
    on = getattr(getattr(loss, "func", None), "__self__", loss)  # of that of all tasks at once
    if not isinstance(on, OnSupport) or on.batches is None:
        return problem, lambda episode, _: episode.support
    seen = on.of_seen()
    of_seen = partial(seen.of_tasks, **loss.keywords) if isinstance(loss, partial) else seen
    return problem._replace(support_loss=of_seen), on.batch


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
        compiled = partial(CompiledStepwise, pieces=Pieces(learner, options))
        eager, self._setup = (_stepping(learner, setup, made) for made in (Stepwise, compiled))
        if self._setup.how.of(len(args[-1])).way == "vmap":
            raise NotImplementedError("losses are vmapped together with the estimator")
        self._function = function
        flat, precise, stepped = (
            Flattened(learner, partial(function, learner, setup), trees)
            for setup in (setup, eager, self._setup)
        )
        tensors = tree_detach(tuple(flat.tensors_of(trees)))
        check_agrees(flat, stepped, tensors, (), precise=precise)

    def __call__(self, learner: Any, setup: Any, *trees: Any) -> Any:
        """Return what the function returns."""
        return self._function(learner, self._setup, *trees)


def _stepping(learner: Any, setup: Any, made: Callable[..., Stepwise]) -> Any:
    """Return a setup whose estimator goes step by step."""
    estimator = by_step(setup.estimator, setup.problem, made)
    if estimator is None:
        raise NotImplementedError(f"{setup.estimator} does not go step by step")
    how = choose(estimator, setup.problem, learner.batching, setup.how.own)
    return replace(setup, estimator=estimator, how=how)
