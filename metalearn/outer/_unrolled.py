"""Reverse mode through the whole inner loop."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metalearn._tree import tree_detach, tree_map
from metalearn.functional import grad_and_value
from metalearn.inner._step import take_step
from metalearn.outer._base import Traits
from metalearn.outer._reverse_mode import ReverseMode, weighted
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem, learned_init


@dataclass(frozen=True)
class Unrolled(ReverseMode):
    """The exact gradient by reverse mode through the whole inner loop. Fastest for few steps.

    Memory grows with the number of steps times the model's activations; `Stepwise` gives the same
    with less.

    Args:
        order: 2 is exact; 1 takes support gradients and losses as constants.
        truncate: Number of last steps to differentiate, at least 0; the gradient before them is
            passed to `init` unchanged. None, or as many as there are, for all.
        multi_step: Weights of the query losses after each step, `MultiStep()`; None for the last
            one alone.

    References:
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017.
    """

    @property
    def traits(self) -> Traits:
        """All tasks at once, but nothing is known of subclasses; one backward pass."""
        return Traits(
            leafwise=type(self) is Unrolled,
            one_backward=True,
            order=self.order,
            stepless=self.multi_step is None,
        )

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        cut = self.num_constant(problem.num_steps)
        weights, next_carry = self.weights(carry, problem.num_steps)

        # torch.compile cannot evaluate a tuple[...] here
        def objective(meta: Meta) -> Any:
            start, state = problem.begin(meta, episode.support, key)
            params = start
            losses = [] if weights else [problem.query_loss(params, meta.shared, episode)]
            fresh = problem.start is learned_init  # nothing else reads what is learned of it
            for step, weight in enumerate(weights):
                params, state, *_ = take_step(
                    problem, meta, params, state, episode, step, self.order, fresh=fresh or step > 0
                )
                if step < cut:
                    params, state = _pass_to_start(params, start), tree_detach(state)
                if weight is not None:
                    loss = problem.query_loss(params, meta.shared, episode)
                    losses.append(weighted(weight, loss))
            return sum(losses[1:], losses[0]), (params, state)

        gradient, (loss, last) = grad_and_value(objective, has_aux=True)(meta)
        return Estimate(gradient, loss, next_carry, {}, *last)


def _pass_to_start(params: Params, start: Params) -> Params:
    """Return `params` as constants whose gradient goes to `start` unchanged."""
    return tree_map(lambda param, first: param.detach() + (first - first.detach()), params, start)
