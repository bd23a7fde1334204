"""Decoupled weight decay around any rule."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from metalearn._fields import Fraction
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


def decayed(updates: Params, params: Params, decay: float) -> Params:
    """Return updates that also take away a fraction of the parameters."""
    return {name: update - decay * params[name] for name, update in updates.items()}


@dataclass(frozen=True)
class WeightDecay(Wrapper):
    """A rule that also takes away a fraction of every parameter: the update is u - decay theta.

    The rule does not see the decay, unlike a penalty in the loss. As in the paper, the rule's rate
    does not multiply it: `AdamW(lr, weight_decay=w)`, which is that of PyTorch, is
    `WeightDecay(Adam(lr), lr * w)`. A `Scheduled` or `LearnedRate` around this rule does.

    Args:
        rule: The rule.
        decay: What is taken away in a step, a fraction from 0 to 1.

    Raises:
        TypeError: If `rule` is not an update rule.
        ValueError: If `decay` is not from 0 to 1.

    References:
        Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019 (algorithms 1, 2).
    """

    decay: Annotated[Fraction, "Write {own}(SGD(lr=0.1), 1e-3), say."]

    @property
    def elementwise(self) -> bool:
        """Whether the wrapped rule is."""
        return self.rule.elementwise

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the wrapped rule's update, less a fraction of the parameters."""
        updates, state = self.rule.update(meta, grads, state, params, loss, step)
        return decayed(updates, params, self.decay), state
