"""A recurrent meta-optimizer whose matrices are Kronecker products."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._fields import Check
from metalearn.inner._activation import Activation, activate, check_activation
from metalearn.inner._kronecker import as_matrices, factors, multiply
from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class KroneckerRNN(Rated):
    """A recurrent meta-optimizer of Kronecker layers, whose hidden state H goes from step to step.

    H_t = s(L_g G_t R_g + L_h H_{t-1} R_h) and U(G_t) = L_o H_t R_o, with an activation s and H_0 =
    0. Arnold et al. say that such a network can be built of their layers, and leave open which;
    this is Elman's. All L and R have the shapes of `KroneckerLinear` and start at the identity, but
    for L_h, which starts at zero, so that U starts as s(G). With s(x) = x, L_h = beta and all
    others the identity it is `Momentum(lr, beta)`. Its matrices adapt within a task too in
    `SelfAdapting(KroneckerRNN(1.0), lr)`.

    Args:
        lr: Learning rate, positive.
        activation: s: "tanh", "relu", another name or any elementwise function.

    Raises:
        TypeError: If `activation` is neither a name nor a function.
        ValueError: If `lr` is not positive and finite, `activation` is unknown, or a side of a
            parameter is too large.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (section 4.2). Elman, "Finding structure in time", Cognitive Science 1990.
    """

    activation: Annotated[Activation, Check(check_activation)] = "tanh"

    def init_meta(self, params: Params) -> PyTree:
        """Return the L and R of gradient, hidden state and output, by tensor."""
        return {name: _layers(name, param) for name, param in params.items()}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return hidden states of zero, named and shaped as the parameters."""
        return {name: torch.zeros_like(param) for name, param in params.items()}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * U(gradient), and the next hidden states."""
        hidden, updates = {}, {}
        for name, grad in grads.items():
            layers, last = meta[name], as_matrices(state[name])
            seen = multiply(layers["grad"], as_matrices(grad))
            new = activate(self.activation, seen + multiply(layers["hidden"], last))
            hidden[name] = new.reshape(grad.shape)
            updates[name] = -self.lr * multiply(layers["output"], new).reshape(grad.shape)
        return updates, hidden


def _layers(name: str, param: Tensor) -> dict[str, dict[str, Tensor]]:
    layers = {layer: factors(name, param) for layer in ("grad", "hidden", "output")}
    layers["hidden"]["L"].zero_()
    return layers
