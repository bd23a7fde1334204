"""AdamW."""

from dataclasses import dataclass

from torch import Tensor

from metalearn._fields import NotNegative
from metalearn.inner._adam import Adam
from metalearn.inner._weight_decay import decayed
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, `torch.optim.AdamW`.

    The update is that of `Adam`, less lr * weight_decay * theta.

    Args:
        lr: Learning rate, positive.
        betas: Decays of the running means of gradient and squared gradient, each at least 0 and
            below 1.
        eps: Added to the root of the squared gradient's mean, positive.
        weight_decay: At least 0; lr times it is the fraction of the parameters that is taken away
            in a step.

    Raises:
        TypeError: If `betas` is not a pair.
        ValueError: If a number is out of its range.

    References:
        Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    weight_decay: NotNegative = 1e-2

    elementwise = True

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return Adam's update - lr * weight_decay * theta."""
        updates, state = super().update(meta, grads, state, params, loss, step)
        return decayed(updates, params, self.lr * self.weight_decay), state
