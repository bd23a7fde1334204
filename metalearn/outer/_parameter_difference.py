"""Reptile's direction: from the start to the adapted parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn import inner
from metalearn._tree import tree_map, tree_zeros_like
from metalearn.outer._base import MetaGradient
from metalearn.types import Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class ParameterDifference(MetaGradient):
    """Reptile: the gradient to `init` is init minus adapted parameters; nothing else gets one.

    With `torch.optim.SGD(lr=epsilon)` the outer step is Reptile's init + epsilon (adapted - init). The query set
    serves for the reported loss alone.

    References:
        Nichol et al., "On first-order meta-learning algorithms", arXiv 2018.
    """

    reaches = frozenset({"init"})

    def __call__(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree) -> Estimate:
        """Estimate one task's meta-gradient."""
        adapted = inner.adapt(problem, meta, episode, key)
        gradient = Meta(
            init=tree_map(torch.sub, meta.init, adapted.params),
            shared=tree_zeros_like(meta.shared),
            rule=tree_zeros_like(meta.rule),
        )
        return Estimate(gradient, problem.query_loss(adapted.params, meta.shared, episode), carry, {})
