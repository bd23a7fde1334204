"""Reptile's direction: from the start to the adapted parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn import inner
from metalearn._fields import Checked, Flag
from metalearn._tree import tree_map
from metalearn.functional import vjp
from metalearn.outer._base import MetaGradient, Traits
from metalearn.types import Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class ParameterDifference(MetaGradient, Checked):
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

    keep_state: Flag = False

    reaches = frozenset({"init"})

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the rule's state that the first task starts with, if states are kept."""
        return Carry(problem.begin(meta, episode.support, key)[1] if self.keep_state else ())

    @property
    def traits(self) -> Traits:
        """All tasks at once, but nothing is known of subclasses."""
        return Traits(leafwise=type(self) is ParameterDifference, order=1)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        if self.keep_state:
            problem = problem._replace(resume=lambda params, _: (params, carry.common))
        adapted = inner.adapt(problem, meta, episode, key)
        start, pull = vjp(lambda meta: problem.begin(meta, episode.support, key)[0], meta)
        gradient = pull(tree_map(torch.sub, start, adapted.params))[0]
        kept = Carry(adapted.state) if self.keep_state else carry
        loss = problem.query_loss(adapted.params, meta.shared, episode)
        return Estimate(gradient, loss, kept, {}, adapted.params, adapted.state)
