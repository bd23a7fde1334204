"""Meta-optimizers whose matrices are Kronecker products."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import Check, Count, Flag
from metalearn.functional import safe_sqrt
from metalearn.inner._activation import Activation, activate, check_activation
from metalearn.inner._gradient_transform import GradientTransform
from metalearn.types import PyTree

MAX_SIZE = 8_192
"""Largest number of rows of a factor, 256 MiB in float32."""


@dataclass(frozen=True)
class KroneckerLinear(GradientTransform):
    """KLin: U(G) = L G R + b, with L and R starting at the identity and b at zero.

    On vec(G) it acts as R^t kron L, plus b. A matrix `[out, in]` has an L `[out, out]` and an R
    `[in, in]`; a convolution `[out, in, *kernel]` has an L `[in, in]` and an R over the flattened
    kernel, shared by its filters; a vector is treated as a matrix `[n, 1]`. In the paper L and R
    also adapt within a task, and theta's update has no rate: `SelfAdapting(KroneckerLinear(1.0),
    lr)`. With constant L and R it is the paper's reading of Meta-Curvature.

    Args:
        lr: Learning rate, positive.
        bias: Whether to learn b, which the paper's experiments do not.

    Raises:
        ValueError: If `lr` is not positive and finite, or a side of a parameter is too large.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (eq. 5).

    >>> meta = KroneckerLinear(0.1).init_meta({"w": torch.zeros(1, 100)})
    >>> sum(leaf.numel() for leaf in meta["w"].values())
    10001
    """

    bias: Flag = False

    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return L, R and, if learned, b."""
        return factors(name, param) | ({"b": torch.zeros_like(param)} if self.bias else {})

    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return L G R + b."""
        transformed = multiply(weights, as_matrices(grad)).reshape(grad.shape)
        return transformed + weights["b"] if self.bias else transformed


@dataclass(frozen=True)
class KroneckerNetwork(GradientTransform):
    """KFC: U(G) = L_h s(... s(L_1 G R_1) ...) R_h, a network of Kronecker layers.

    Between its layers is an activation s. All L and R have the shapes of `KroneckerLinear` and
    start at the identity, so that U starts as s(G): with the paper's ReLU it ignores negative
    gradients until it has learned. In the paper the matrices also adapt within a task, and theta's
    update has no rate: `SelfAdapting(KroneckerNetwork(1.0), lr)`.

    Args:
        lr: Learning rate, positive.
        num_layers: Number of Kronecker layers, at least 1.
        activation: Between the layers: "relu", "tanh", another name or any elementwise function.
        normalise: Whether the network sees the gradient scaled to unit norm, and its output is
            multiplied by the norm and elementwise by a learned factor. The factor has G's shape, is
            shared by a convolution's filters and starts at 1. The paper does so for non-linear
            models.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of its range, or a side of a parameter is too large.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
            2019 (eq. 7, section A.1.2).

    >>> rule = KroneckerNetwork(0.1, normalise=True)
    >>> weights = rule.init_weights("filters", torch.zeros(64, 32, 3, 3))
    >>> weights["factor"].shape
    torch.Size([32, 9])
    """

    num_layers: Count = 2
    activation: Annotated[Activation, Check(check_activation)] = "relu"
    normalise: Flag = False

    def collapse(self, meta: PyTree) -> tuple[KroneckerLinear, PyTree]:
        """Return the `KroneckerLinear` that a chain without activation is equal to.

        With `activation="identity"`, or one layer, U(G) = (L_h ... L_1) G (R_1 ... R_h).

        Args:
            meta: The rule's meta-parameters, such as `learner.meta.rule`, or those that
                `SelfAdapting` has adapted, `adapted.state["xi"]`, with their task axis.

        Returns:
            The rule of the same updates, and its meta-parameters: L and R by tensor.

        Raises:
            ValueError: If there is an activation between layers, or a factor of elements, or `meta`
                is that of another rule.

        >>> rule = KroneckerNetwork(0.1, num_layers=4, activation="identity")
        >>> rule.collapse(rule.init_meta({"w": torch.zeros(3, 2)}))[0]
        KroneckerLinear(lr=0.1, bias=False)
        """
        if self.normalise or (self.num_layers > 1 and self.activation != "identity"):
            fix = f'Write KroneckerNetwork({self.lr}, {self.num_layers}, activation="identity").'
            condition = "be a chain of matrices, without activation or factor, to be collapsed"
            raise invalid("KroneckerNetwork", condition, self, fix)
        tensors = meta.values() if isinstance(meta, dict) else ()
        if not tensors or not all(isinstance(of, dict) and "layers" in of for of in tensors):
            fix = 'Pass learner.meta.rule, or of a rule around this one, learner.meta.rule["rule"].'
            got = f"entries {list(meta)}" if isinstance(meta, dict) else type(meta).__name__
            raise invalid("meta", "be the matrices of KroneckerNetwork", got, fix)
        return KroneckerLinear(self.lr), {name: _chain(of["layers"]) for name, of in meta.items()}

    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return the layers' L and R and, if normalised, the factor of the output."""
        weights: dict[str, Any] = {"layers": [factors(name, param) for _ in range(self.num_layers)]}
        if self.normalise:
            weights["factor"] = param.new_ones(as_matrices(param).shape[-2:])
        return weights

    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return the network's output for the gradient."""
        if not self.normalise:
            return self._network(weights["layers"], as_matrices(grad)).reshape(grad.shape)
        norm = safe_sqrt(grad.square().sum())
        direction = as_matrices(grad / torch.where(norm > 0, norm, 1.0))
        output = weights["factor"] * norm * self._network(weights["layers"], direction)
        return output.reshape(grad.shape)

    def _network(self, layers: list[dict[str, Tensor]], matrices: Tensor) -> Tensor:
        hidden = multiply(layers[0], matrices)
        for layer in layers[1:]:
            hidden = multiply(layer, activate(self.activation, hidden))
        return hidden


def as_matrices(tensor: Tensor) -> Tensor:
    """Return a tensor as a matrix, or as a matrix `[in, kernel]` for every filter."""
    if tensor.dim() > 2:
        return tensor.flatten(2)
    return tensor if tensor.dim() == 2 else tensor.reshape(-1, 1)


def identity(name: str, size: int, like: Tensor) -> Tensor:
    """Return the identity matrix, where a factor of parameter `name` starts.

    Raises:
        ValueError: If it is too large.
    """
    if size > MAX_SIZE:
        fix = "Leave the parameter out of fast=, or use LowRank(lr, rank=4, identity=True)."
        got = f"a side of {size:,} in {name!r}, shaped {tuple(like.shape)}"
        condition = f"have sides up to {MAX_SIZE:,}"
        raise invalid("a parameter with a matrix for each side", condition, got, fix)
    return torch.eye(size, dtype=like.dtype, device=like.device)


def factors(name: str, param: Tensor) -> dict[str, Tensor]:
    """Return L and R of one parameter, at the identity."""
    rows, columns = as_matrices(param).shape[-2:]
    return {"L": identity(name, rows, param), "R": identity(name, columns, param)}


def _chain(layers: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the L and R that layers without activation multiply to."""
    left, right = layers[0]["L"], layers[0]["R"]
    for layer in layers[1:]:
        left, right = layer["L"] @ left, right @ layer["R"]
    return {"L": left, "R": right}


def multiply(layer: dict[str, Tensor], matrices: Tensor) -> Tensor:
    """Return L G R of every matrix."""
    return layer["L"] @ matrices @ layer["R"]
