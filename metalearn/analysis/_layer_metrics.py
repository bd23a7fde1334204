"""The metric of each layer of a T-net, and the subspace that the mask of an MT-net leaves of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import check_kind, invalid
from metalearn._modules import get_tensor
from metalearn.analysis._plot import axes_or_new
from metalearn.evaluation import bare
from metalearn.inner._masked import mask_logits
from metalearn.inner._t_net import TLayer
from metalearn.outer import MetaLearner


@dataclass(frozen=True, eq=False)
class LayerMetric:
    """How gradient descent on a layer's W moves y = T (W x + b), of n units.

    All tensors are on the CPU, in float64.

    Attributes:
        transform: T `[n, n]`.
        probabilities: Probability `[n]` that a task changes each row of W: sigmoid(zeta) under a
            mask, 1 without one, 0 where W does not adapt.
    """

    transform: Tensor
    probabilities: Tensor

    @property
    def metric(self) -> Tensor:
        """T T^t `[n, n]`, by which y moves against its gradient if all rows adapt (eq. 17)."""
        return self.transform @ self.transform.mT

    @property
    def masked_metric(self) -> Tensor:
        """Mean over masks of T_M^t T_M, `[n, n]`: T diag(p) T^t of the probabilities p."""
        return self.under(self.probabilities)

    @property
    def spectrum(self) -> Tensor:
        """Eigenvalues `[n]` of `metric`, the largest first."""
        return _eigenvalues(self.metric)

    @property
    def masked_spectrum(self) -> Tensor:
        """Eigenvalues `[n]` of `masked_metric`, the largest first."""
        return _eigenvalues(self.masked_metric)

    @property
    def dimension(self) -> float:
        """Expected dimension of the subspace that y moves in: that of a T of full rank."""
        return self.probabilities.sum().item()

    def under(self, mask: Tensor) -> Tensor:
        """Return T_M^t T_M = T diag(m) T^t `[n, n]`, by which y moves in one task (eq. 24).

        Args:
            mask: The task's mask m `[n]`, such as `adapted.state["mask"]["0.W"][i]`.

        Raises:
            TypeError: If the mask is no tensor.
            ValueError: If it is not of n units.
        """
        example = 'learner.adapt(support).state["mask"]["0.W"][0]'
        check_kind("mask", mask, Tensor, "a tensor", example)
        if mask.shape != self.probabilities.shape:
            shape = tuple(self.probabilities.shape)
            raise invalid("mask", f"be shaped {shape}", tuple(mask.shape), f"Pass {example}, say.")
        return self.transform * _as_result(mask) @ self.transform.mT


@dataclass(frozen=True, eq=False)
class LayerMetrics:
    """The result of `layer_metrics`.

    Attributes:
        layers: What is known of every layer with a T, by its name.
    """

    layers: dict[str, LayerMetric]

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's eigenvalues, the largest first; return matplotlib's axes.

        Lines are those of `masked_spectrum`; a dashed one is `spectrum`, where a mask takes part of
        it away.
        """
        ax = axes_or_new(ax)
        for name, layer in self.layers.items():
            places = range(1, len(layer.spectrum) + 1)
            (line,) = ax.plot(places, layer.masked_spectrum, marker=".", label=name or "model")
            if (layer.probabilities < 1).any():
                ax.plot(places, layer.spectrum, linestyle="--", color=line.get_color())
        ax.set_yscale("log")
        ax.set_xlabel("direction")
        ax.set_ylabel("eigenvalue")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        return "\n".join(
            f"{name or 'model'}: {layer.dimension:.1f} of {len(layer.probabilities)} dimensions, "
            f"eigenvalues {layer.masked_spectrum[-1]:.2g} to {layer.masked_spectrum[0]:.2g}"
            for name, layer in self.layers.items()
        )


def layer_metrics(learner: MetaLearner) -> LayerMetrics:
    """Return the metric that each T of a T-net or an MT-net has learned, and its subspace.

    A gradient step on W at rate alpha moves the layer's y by -alpha T T^t times the gradient of y,
    and under a mask m by -alpha T diag(m) T^t times it. Learned rates and whatever else the rule
    does to gradients are not in it.

    Args:
        learner: A learner of a T-net, such as `outer.TNet` or `outer.MTNet`; it is not changed.

    Raises:
        TypeError: If `learner` is no `MetaLearner`.
        ValueError: If its model has no T, or a T adapts.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
            ICML 2018 (section 4 of its first version, arXiv:1801.05558v1).

    >>> import torch.nn.functional as F
    >>> from metalearn import inner, models, outer
    >>> t_net = inner.t_net(models.mlp(1, [4], 1))
    >>> layer_metrics(outer.MTNet(t_net, F.mse_loss, inner.SGD(lr=0.01), num_steps=1))
    0: 2.0 of 4 dimensions, eigenvalues 0.5 to 0.5
    2: 0.5 of 1 dimensions, eigenvalues 0.5 to 0.5
    """
    learner = bare(learner, MetaLearner)
    meta = learner.meta
    named = learner.model.named_modules()
    layers = [name for name, module in named if isinstance(module, TLayer)]
    fix = "Write outer.TNet(inner.t_net(model), criterion, rule, num_steps=1), say."
    if not layers:
        raise invalid("the learner's model", "have a matrix T after its layers", "none", fix)
    names = {name: f"{name}.T.weight".lstrip(".") for name in layers}
    if adapted := [tensor for tensor in names.values() if tensor in meta.init]:
        raise invalid("T", "be shared by all tasks", f"{adapted} among fast parameters", fix)
    logits, metrics = mask_logits(meta.rule), {}
    for name, tensor in names.items():
        transform = _as_result(get_tensor(learner.model, tensor)).flatten(1)
        layer = f"{name}.W".lstrip(".")
        is_fast = any(fast.startswith(f"{layer}.") for fast in meta.init)
        probabilities = transform.new_full(transform.shape[:1], float(is_fast))
        if layer in logits:
            probabilities = _as_result(logits[layer]).sigmoid()
        metrics[name] = LayerMetric(transform, probabilities)
    return LayerMetrics(metrics)


def _eigenvalues(matrix: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(matrix).flip(0)


def _as_result(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().to("cpu").double()
