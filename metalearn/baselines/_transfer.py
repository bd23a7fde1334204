"""Joint training of one model, which a new task then trains on in mini-batches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn import inner
from metalearn._checks import check_count
from metalearn._derivatives import grad_and_value
from metalearn._tree import tree_leaves, tree_map, tree_zeros_like
from metalearn.functional import uniform
from metalearn.outer import MetaGradient
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class Transfer(MetaGradient):
    """The gradient of joint training, without an inner loop; adaptation is training on mini-batches.

    Of the parameters after every `select_every` steps, and after the last one, those with the lowest loss on the whole
    support set are kept. Padded tasks adapt as they would without padding, but at the cost of the whole support set in
    every step.

    Args:
        batch_size: Number of support examples in a mini-batch, drawn with replacement, at least 1.
        select_every: Number of steps between looks at the whole support set, at least 1.

    Raises:
        TypeError: If a number is no int.
        ValueError: If a number is below 1.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, algorithm 1 and appendix A.1.
        Chen et al., "A closer look at few-shot classification", ICLR 2019.
    """

    batch_size: int = 4
    select_every: int = 25

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, fix="Write Transfer(batch_size=4).")
        check_count("select_every", self.select_every, fix="Write Transfer(select_every=25).")

    @property
    def reaches(self) -> frozenset[str]:
        """What the model consists of."""
        return frozenset({"init", "shared"})

    @property
    def differentiates(self) -> frozenset[str]:
        """The query loss."""
        return frozenset({"query"})

    def __call__(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree) -> Estimate:
        """Return the gradient of the query loss at the start."""
        (init, shared), loss = grad_and_value(problem.query_loss, argnums=(0, 1))(meta.init, meta.shared, episode)
        return Estimate(Meta(init, shared, tree_zeros_like(meta.rule)), loss, carry, {})

    def adapt(self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int) -> Adapted:
        """Train on mini-batches of the support set."""
        params = best = meta.init
        state = problem.rule.init_state(meta.rule, params, key)
        lowest: Tensor | float = torch.inf
        whole = Episode(support, Batch(()))
        for step in range(num_steps):
            part = Episode(self._draw(support, key, step), Batch(()))
            params, state, *_ = inner.step(problem, meta, params, state, part, step)
            if (step + 1) % self.select_every == 0 or step + 1 == num_steps:
                loss = problem.support_loss(params, meta.shared, whole, step)
                is_better = loss < lowest
                best = tree_map(lambda new, old, chosen=is_better: torch.where(chosen, new, old), params, best)
                lowest = torch.where(is_better, loss, lowest)
        return Adapted(best, meta.shared, state)

    def _draw(self, support: Batch, key: Tensor, step: int) -> Batch:
        """Draw a mini-batch of the support set with replacement; of a padded one, all examples with new weights."""
        drawn = uniform(key, (self.batch_size,), stream=step, dtype=torch.float64)
        if not tree_leaves(support.weight):
            chosen = (drawn * len(tree_leaves(support)[0])).long()
            return tree_map(lambda leaf: leaf[chosen], support)
        is_there = support.weight > 0
        rank = is_there.cumsum(0) - 1
        times = (rank == (drawn * is_there.sum()).long()[:, None]).sum(0)
        # Not zero for those left out: by the weights the criterion knows the task's classes.
        times = times.to(torch.promote_types(support.weight.dtype, torch.float32)).clamp(min=1e-30)
        return support._replace(weight=support.weight * times)
