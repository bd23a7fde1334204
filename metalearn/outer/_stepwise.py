"""Reverse mode one inner step at a time: the gradient of `Unrolled` without its memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeAlias

from torch import Tensor

from metalearn import inner
from metalearn._blocks import blocks_of, by_blocks
from metalearn._brief import brief
from metalearn._checks import check_kind, invalid
from metalearn._fields import Check, CountOrNone
from metalearn._random import Draws
from metalearn._tree import tree_add, tree_zeros_like
from metalearn.functional import grad_and_value
from metalearn.functional._derivatives import pullback
from metalearn.functional._losses import is_of_model
from metalearn.inner._step import take_step
from metalearn.outer._base import Traits
from metalearn.outer._reverse_mode import WHOLE, ReverseMode, weighted
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem, PyTree


class Record(NamedTuple):
    """What the backward pass needs of one inner step.

    Attributes:
        step: Its number.
        params: Parameters before it.
        state: The rule's state before it.
        constants: Gradient and loss, where they are constants; else they are computed again.
        draws: What it draws, and will draw again.
    """

    step: int
    params: Params
    state: PyTree
    constants: tuple[Params, Tensor] | None
    draws: Draws


Weights: TypeAlias = Sequence[Tensor | float | None]
"""Of the query losses after each step; None for none."""
_Start: TypeAlias = tuple[tuple[Params, PyTree, Sequence[int]], Draws]
"""Parameters and state at the start of a segment, and the numbers of its steps; its draws."""


class Slopes(NamedTuple):
    """Derivatives of the losses seen so far, going backwards from the last step.

    Attributes:
        params: With respect to the parameters where the backward pass stands; empty before a loss
            is seen.
        state: With respect to the rule's state there.
        shared: With respect to what is shared, by all steps passed; likewise empty.
        rule: With respect to the rule's meta-parameters, by all steps passed.
    """

    params: Params
    state: PyTree
    shared: Params
    rule: PyTree


@dataclass(frozen=True)
class Stepwise(ReverseMode):
    """The exact gradient, one inner step at a time: memory grows with steps times parameters.

    The forward pass keeps every step's parameters and rule state, at order 1 its gradient and loss
    too. The backward pass pulls the loss's derivative back through one step after the other: at
    order 2 it takes the step again, and pulls back through the rule and, by one Hessian-vector
    product, through the gradient. What the model draws by PyTorch's generators, as dropout does, it
    draws again then.

    Args:
        order: 2 is exact; 1 takes support gradients and losses as constants.
        truncate: Number of last steps to differentiate, at least 0; the gradient before them is
            passed to `init` unchanged. None, or as many as there are, for all.
        multi_step: Weights of the query losses after each step, `MultiStep()`; None for the last
            one alone.
        segment: Number of steps, at least 1, of which only the start is kept until the backward
            pass computes them again: memory grows with num_steps / segment + segment copies of the
            parameters, in place of num_steps. None keeps all.
        blocks: Pattern of names of modules, "layers.*", which backward passes compute again one by
            one, so that the graph of one of them is alive at a time, in place of the model's. Tasks
            are then computed in a loop, and nothing is compiled. Derivatives pass through the
            parameters, buffers, arguments and outputs of a block, not through tensors that it
            leaves, or finds, in attributes or elsewhere. It is called again within the same
            autocast, with the same values of its modules' attributes; what changes in place during
            the forward pass, such as a list that it reads, is not put back.

    Raises:
        TypeError: If `segment` is no int, or `blocks` no string, and as `Unrolled`.
        ValueError: If `segment` is below 1, or no module is named as `blocks` says, and as
            `Unrolled`.

    References:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter optimization", ICML
        2017 (eqs. 6-7). Chen et al., "Training deep nets with sublinear memory cost", arXiv 2016
        (segments).
    """

    segment: Annotated[CountOrNone, "None keeps all steps."] = None
    blocks: Annotated[str | None, Check(check_kind, str, "a pattern of names", "'layers.*'")] = None

    @property
    def traits(self) -> Traits:
        """All tasks at once, but nothing is known of subclasses; losses twice, with their draws.

        At order 1 the rule alone is taken again, and would draw what the loss has drawn.
        """
        return Traits(
            leafwise=type(self) is Stepwise,
            repeats_losses=True,
            replays_draws=self.order == 2,
            one_by_one=self.blocks is not None,
            order=self.order,
            stepless=self.multi_step is None,
        )

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if the model has no such blocks."""
        if self.blocks is not None:
            _check_blocks(f"blocks of {self}", self.blocks, problem.support_loss)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        weights, next_carry = self.weights(carry, problem.num_steps)
        task = self.task(problem, meta, episode, weights or [WHOLE])

        def begin(meta: Meta) -> Any:
            return problem.begin(meta, episode.support, key)

        with Draws(key.device) as at_start:
            params, state = begin(meta)
        cut, size = self.num_constant(problem.num_steps), self.segment or problem.num_steps or 1

        loss: Any = 0.0
        early = Slopes({}, tree_zeros_like(state), {}, tree_zeros_like(meta.rule))
        for step in range(cut):
            _, params, state = task.run(params, state, [step])
            loss, early = task.add_loss(step, params, loss, early)
        if not weights:  # the loss at the start
            loss, early = task.add_loss(0, params, loss, early)

        starts: list[_Start] = []
        records: list[Record] = []
        for first in range(cut, problem.num_steps, size):
            records.clear()  # before the next are made
            segment = params, state, range(first, min(first + size, problem.num_steps))
            with Draws(key.device) as draws:
                records, params, state = task.run(*segment)
            starts.append((segment, draws))
        slopes, last = early._replace(params={}), (params, state)
        for record in _backwards(task, starts, records):
            loss, slopes = task.add_loss(record.step, params, loss, slopes)
            params, slopes = record.params, task.pull_back(record, slopes)

        # Of the steps before `cut` everything is constant but for the start.
        state_slope = tree_zeros_like(slopes.state) if cut else slopes.state
        with at_start.again():
            pull = pullback(begin, meta)
        of_start = pull((_sum(slopes.params, early.params), state_slope))[0]
        gradient = Meta(
            of_start.init,
            tree_add(slopes.shared, of_start.shared),
            tree_add(slopes.rule, of_start.rule),
        )
        return Estimate(gradient, loss, next_carry, {}, *last)

    def task(
        self,
        problem: Problem,
        meta: Meta,
        episode: Episode,
        weights: Sequence[Tensor | float | None],
    ) -> "InnerLoop":
        """Return the inner loop of one task, or of all at once."""
        if self.blocks is not None:
            losses = problem.support_loss, problem.query_loss
            support_loss, query_loss = (by_blocks(loss, self.blocks) for loss in losses)
            problem = problem._replace(support_loss=support_loss, query_loss=query_loss)
        return InnerLoop(problem, meta, episode, self.order, weights)


@dataclass(frozen=True)
class InnerLoop:
    """One task's inner loop, to be taken forwards and pulled back through."""

    problem: Problem
    meta: Meta
    episode: Episode
    order: int
    weights: Weights

    def run(
        self, params: Params, state: PyTree, steps: Sequence[int]
    ) -> tuple[list[Record], Params, PyTree]:
        """Take inner steps, and return their records beside parameters and state after them."""
        records, device = [], next(iter(params.values())).device
        for step in steps:
            with Draws(device) as draws:
                after, constants = self.step(params, state, step)
            records.append(Record(step, params, state, constants, draws))
            params, state = after
        return records, params, state

    def step(
        self, params: Params, state: PyTree, step: int
    ) -> tuple[tuple[Params, PyTree], tuple[Params, Tensor] | None]:
        """Take one inner step; return parameters and state after it, and what is constant."""
        taken = inner.step(self.problem, self.meta, params, state, self.episode, step)
        constants = (taken.grads, taken.loss) if self.order == 1 else None
        return (taken.params, taken.state), constants

    def add_loss(self, step: int, params: Params, loss: Any, slopes: Slopes) -> tuple[Any, Slopes]:
        """Add the weighted query loss after a step, and its derivatives, to those of later ones."""
        weight = self.weights[step]
        if weight is None:
            return loss, slopes

        def query_loss(params: Params, shared: Params) -> Tensor:
            return weighted(weight, self.problem.query_loss(params, shared, self.episode))

        more, value = grad_and_value(query_loss, argnums=(0, 1))(params, self.meta.shared)
        params_slope, shared_slope = map(_sum, (slopes.params, slopes.shared), more)
        return loss + value, slopes._replace(params=params_slope, shared=shared_slope)

    def pull_back(self, record: Record, slopes: Slopes) -> Slopes:
        """Pull derivatives with respect to what comes out of a step back to what went into it."""

        def step(params: Params, state: PyTree, shared: Params, rule: PyTree) -> Any:
            if record.constants is None:
                at = Meta({}, shared, rule), params, state, self.episode, record.step
                return take_step(self.problem, *at, fresh=True)[:2]  # which are new
            grads, loss = record.constants
            return self.problem.rule.advance(rule, grads, state, params, loss, record.step)

        with record.draws.again():
            pull = pullback(step, record.params, record.state, self.meta.shared, self.meta.rule)
        pulled = Slopes(*pull((slopes.params, slopes.state)))
        return pulled._replace(
            shared=tree_add(slopes.shared, pulled.shared), rule=tree_add(slopes.rule, pulled.rule)
        )


def _check_blocks(what: str, pattern: str, loss: Any) -> None:
    if not is_of_model(loss):
        fix = "Leave blocks out, or pass model and criterion in place of support_loss."
        raise invalid(what, "be of a model that the learner calls", brief(loss), fix)
    if not blocks_of(loss.loss.model, pattern):
        names = [name for name, _ in loss.loss.model.named_children()]
        got = f"{pattern!r}, where it has {names}"
        raise invalid(what, "be modules of the model", got, "Write 'layers.*', say.")


def _sum(left: Params, right: Params) -> Params:
    """Add derivatives, of which there may be none yet."""
    return tree_add(left, right) if left and right else left or right


def _backwards(task: InnerLoop, starts: list[_Start], records: list[Record]) -> Iterator[Record]:
    """Yield the steps' records from last to first, and forget them.

    Those of the last segment are there, those of the others are made again from their starts.
    """
    while starts:
        segment, draws = starts.pop()
        if not records:
            with draws.again():
                records, *_ = task.run(*segment)
        while records:
            yield records.pop()
