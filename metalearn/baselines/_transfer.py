"""Joint training of one model, which new tasks train further on mini-batches."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from metalearn import inner
from metalearn._checks import invalid
from metalearn._fields import Checked, Count
from metalearn._tree import tree_map, tree_zeros_like
from metalearn.functional import OnSupport, SampledBatches, grad_and_value
from metalearn.outer import MetaGradient, Traits
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class Transfer(MetaGradient, Checked):
    """The gradient of joint training without an inner loop; tasks train on mini-batches.

    After every `select_every` steps and after the last one, the loss on the whole support set is
    computed, and the parameters with the lowest loss are kept. Padded tasks adapt as without
    padding, but every step costs as much as the whole support set.

    Args:
        batch_size: Number of support examples in a mini-batch, drawn with replacement, at least 1.
        select_every: Number of steps between evaluations on the whole support set, at least 1.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is below 1.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, algorithm 1 and
        appendix A.1. Chen et al., "A closer look at few-shot classification", ICLR 2019.
    """

    _what: ClassVar[str] = "{field}"

    batch_size: Annotated[Count, "Write Transfer(batch_size=4)."] = 4
    select_every: Annotated[Count, "Write Transfer(select_every=25)."] = 25

    @property
    def reaches(self) -> frozenset[str]:
        """The model's parameters."""
        return frozenset({"init", "shared"})

    traits = Traits(differentiates=frozenset({"query"}), joint=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise for support batches, since the estimator draws its own."""
        if isinstance(problem.support_loss, OnSupport) and problem.support_loss.batches is not None:
            fix = f"Leave it out: {self} draws batches of {self.batch_size}."
            got = problem.support_loss.batches
            raise invalid(f"support_batches under {self}", "not be given", got, fix)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Return the gradient of the query loss at the start."""
        differentiate = grad_and_value(problem.query_loss, argnums=(0, 1))
        (init, shared), loss = differentiate(meta.init, meta.shared, episode)
        return Estimate(Meta(init, shared, tree_zeros_like(meta.rule)), loss, carry, {})

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Train on mini-batches of the support set."""
        params = best = meta.init
        state = problem.rule.init_state(meta.rule, params, key)
        lowest: Tensor | float = torch.inf
        whole = Episode(support, Batch(()))
        batches = SampledBatches(self.batch_size, replacement=True)
        for step in range(num_steps):
            part = Episode(batches.of_step(support, key, step), Batch(()))
            params, state, *_ = inner.step(problem, meta, params, state, part, step)
            if (step + 1) % self.select_every == 0 or step + 1 == num_steps:
                loss = problem.support_loss(params, meta.shared, whole, step)
                choose: Any = partial(torch.where, loss < lowest)
                best, lowest = tree_map(choose, params, best), choose(loss, lowest)
        return Adapted(best, meta.shared, state)
