"""Reptile's direction: from the start to the adapted parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn import inner
from metalearn._checks import check_bool
from metalearn._tree import tree_leaves, tree_map, tree_zeros_like
from metalearn.outer._base import MetaGradient
from metalearn.types import Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True)
class ParameterDifference(MetaGradient):
    """Reptile: the gradient to `init` is init minus adapted parameters; nothing else gets one.

    With `torch.optim.SGD(lr=epsilon)` the outer step is Reptile's init + epsilon (adapted - init).
    The query set serves for the reported loss alone.

    Args:
        keep_state: Whether a task starts with the rule's last state, such as Adam's means, instead
            of a fresh one, as in the authors' code. Tasks of one meta-batch start alike; the mean
            of what they leave is kept. `adapt` always starts with a fresh state.

    Raises:
        TypeError: If `keep_state` is no bool.

    References:
        Nichol et al., "On first-order meta-learning algorithms", arXiv 2018.
    """

    keep_state: bool = False

    reaches = frozenset({"init"})

    def __post_init__(self) -> None:
        check_bool("ParameterDifference's keep_state", self.keep_state)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode) -> PyTree:
        """Return the rule's state that the first task starts with, if states are kept."""
        key = tree_leaves(meta.init)[0].new_zeros((), dtype=torch.int64)
        return problem.rule.init_state(meta.rule, meta.init, key) if self.keep_state else ()

    @property
    def leafwise(self) -> bool:
        """Yes, but nothing is known of subclasses."""
        return type(self) is ParameterDifference

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        adapted = inner.adapt(problem, meta, episode, key, state=carry if self.keep_state else None)
        gradient = Meta(
            init=tree_map(torch.sub, meta.init, adapted.params),
            shared=tree_zeros_like(meta.shared),
            rule=tree_zeros_like(meta.rule),
        )
        kept = adapted.state if self.keep_state else carry
        return Estimate(
            gradient, problem.query_loss(adapted.params, meta.shared, episode), kept, {}
        )
