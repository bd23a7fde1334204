"""Adam."""

from dataclasses import dataclass

from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_decay, mistyped
from metalearn._fields import Positive
from metalearn._tree import over_first_axes, tree_zeros_like
from metalearn.functional import safe_sqrt
from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Adam(Rated):
    """Adam, `torch.optim.Adam`, with a finite second derivative where a gradient is zero.

    Args:
        lr: Learning rate, positive.
        betas: Decays of the running means of gradient and squared gradient, each at least 0 and
            below 1.
        eps: Added to the root of the squared gradient's mean, positive.

    Raises:
        TypeError: If `betas` is not a pair.
        ValueError: If a number is out of its range.

    References:
        Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: Positive = 1e-8

    elementwise = True

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"{type(self).__name__}'s betas"
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            fix = "Write betas=(0.9, 0.999)."
            raise mistyped(what, "be a pair", brief(self.betas), fix)
        object.__setattr__(self, "betas", tuple(self.betas))
        for beta in self.betas:
            check_decay(what, beta)

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return means of nothing, and the weights of what is in them, one a task as its key."""
        zero = next(iter(params.values())).new_zeros(key.shape)
        means = {"mean": tree_zeros_like(params), "square": tree_zeros_like(params)}
        return {**means, "weights": (zero, zero)}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * mean / (sqrt(square) + eps), with bias-corrected means."""

        def average(mean: Tensor, value: Tensor | float, beta: float) -> Tensor:
            return beta * mean + (1 - beta) * value

        (beta1, beta2), (weight1, weight2) = self.betas, state["weights"]
        mean = {n: average(state["mean"][n], grad, beta1) for n, grad in grads.items()}
        square = {n: average(state["square"][n], grad**2, beta2) for n, grad in grads.items()}
        # The weights are state, since a state may outlive its task (as Reptile's does), and means
        # of ones, since 1 - beta**n loses digits in low precision.
        weight1, weight2 = average(weight1, 1, beta1), average(weight2, 1, beta2)
        updates = {}
        for name in grads:
            first = mean[name] / over_first_axes(weight1, mean[name])
            second = square[name] / over_first_axes(weight2, square[name])
            updates[name] = -self.lr * first / (safe_sqrt(second) + self.eps)
        return updates, {"mean": mean, "square": square, "weights": (weight1, weight2)}
