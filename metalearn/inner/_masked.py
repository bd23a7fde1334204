"""Learned random masks: which output units of every layer a task may change."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import Flag, Positive
from metalearn._tree import over_first_axes
from metalearn.functional import derive_key, uniform
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Masked(Wrapper):
    """A rule whose updates pass a random binary mask on output units, with learned probabilities.

    The mask is drawn once per task. Unit j of a layer, its row or filter of the weight and its
    element of the bias, is updated with probability sigmoid(zeta_j). The logits zeta start at 0 and
    are learned through the Gumbel-softmax distribution. Meta-parameters are `{"mask": {<module>:
    {"logits": [units]}}, "rule": ...}`, with the rule's own under "rule".

    Args:
        rule: The rule whose updates are masked.
        temperature: Temperature of the Gumbel-softmax distribution, positive; near 0 the mask is
            binary and its gradient noisy. The paper does not state it; its authors' code uses 1.
        hard: Whether the mask is rounded to 0 or 1, with the gradient of the unrounded mask
            (straight-through).

    Raises:
        TypeError: If `rule` is not an update rule, or `hard` not a bool.
        ValueError: If the temperature is not positive.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018 (MT-net). Jang et al., "Categorical reparameterization with Gumbel-softmax", ICLR
        2017.
    """

    temperature: Annotated[Positive, "Write Masked(rule, temperature=1.0), say."] = 1.0
    hard: Flag = True

    def init_meta(self, params: Params) -> PyTree:
        """Return logits of zero for every layer, and the rule's own meta-parameters."""
        first = {layer: params[names[0]] for layer, names in _layers(params).items()}
        logits = {name: {"logits": p.new_zeros(p.shape[:1])} for name, p in first.items()}
        return {"mask": logits, "rule": self.rule.init_meta(params)}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the task's masks `[units]` by layer, and the rule's state."""
        masks = {
            layer: self._sample(of["logits"], key, stream)
            for stream, (layer, of) in enumerate(meta["mask"].items())
        }
        return {"mask": masks, "rule": self.rule.init_state(meta["rule"], params, derive_key(key))}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the rule's updates where the mask lets them through."""
        mask, inside = state["mask"], state["rule"]
        updates, inside = self.rule.update(meta["rule"], grads, inside, params, loss, step)
        masks = {name: mask[layer] for layer, names in _layers(params).items() for name in names}
        masked = {n: over_first_axes(masks[n], update) * update for n, update in updates.items()}
        return masked, {"mask": mask, "rule": inside}

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return the wrapped rule's rate and the masked rule at rate 1."""
        return self._split_inside()

    def _sample(self, logits: Tensor, key: Tensor, stream: int) -> Tensor:
        """Return a mask from the binary Gumbel-softmax distribution, `[units]`."""
        # The difference of two Gumbel variables is logistic, so one number per unit is enough.
        noise = uniform(key, logits.shape, stream, dtype=logits.dtype).logit()
        soft = torch.sigmoid((logits + noise) / self.temperature)
        return (soft > 0.5).to(soft) + (soft - soft.detach()) if self.hard else soft


def adapted_fraction(meta: PyTree) -> dict[str, Tensor]:
    """Return each layer's expected fraction of output units that a task changes.

    This is the mean of sigmoid(zeta), the probability that the mask passes an update (eq. 9).
    Figure 4 of the paper plots `kept_fraction`, which is 1 minus this, and calls it the fraction
    that changes.

    Args:
        meta: Learned meta-parameters of `Masked`, or of a rule around it: `learner.meta.rule`.

    Returns:
        A scalar for every layer, named as in the mask.

    Raises:
        ValueError: If `meta` has no mask.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018 (eq. 9 of its first version, arXiv:1801.05558v1).
    """
    return {layer: logits.sigmoid().mean() for layer, logits in _logits(meta).items()}


def kept_fraction(meta: PyTree) -> dict[str, Tensor]:
    """Return each layer's expected fraction of output units that a task leaves alone.

    This is the mean of sigmoid(-zeta), or 1 minus `adapted_fraction`. Figure 4 of the paper plots
    it as "the fraction of weights that a task-specific learner changes", the average of e^-l /
    (e^-l + 1) over all logits l; the authors' code averages within layers and then over layers. The
    sign contradicts eq. 9, by which the mask is drawn.

    Args:
        meta: Learned meta-parameters of `Masked`, or of a rule around it: `learner.meta.rule`.

    Returns:
        A scalar for every layer, named as in the mask.

    Raises:
        ValueError: If `meta` has no mask.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018 (Figure 4 of its first version, arXiv:1801.05558v1).
    """
    return {layer: (-logits).sigmoid().mean() for layer, logits in _logits(meta).items()}


def _logits(meta: PyTree) -> dict[str, Tensor]:
    """Return the logits of the outermost mask by layer; raise if there is none."""
    if not (logits := mask_logits(meta)):
        fix = "Pass learner.meta.rule of a learner with inner.Masked, such as outer.MTNet."
        raise invalid("meta", "have a mask in it", type(meta).__name__, fix)
    return logits


def mask_logits(meta: PyTree) -> dict[str, Tensor]:
    """Return the logits of the outermost mask by layer, of each of several groups; {} if none."""
    if isinstance(meta, tuple):  # of inner.Groups
        return {layer: logits for group in meta for layer, logits in mask_logits(group).items()}
    if not isinstance(meta, dict) or "mask" not in meta:
        return mask_logits(meta["rule"]) if isinstance(meta, dict) and "rule" in meta else {}
    layers = meta["mask"].items() if isinstance(meta["mask"], dict) else ()
    named = [(layer, of.get("logits")) for layer, of in layers if isinstance(of, dict)]
    return {layer: leaf for layer, leaf in named if isinstance(leaf, Tensor)}


def _layers(params: Params) -> dict[str, list[str]]:
    """Group parameters that share a mask: those of one module with equally many rows."""
    groups: dict[tuple[str, torch.Size], list[str]] = {}
    for name, param in params.items():
        groups.setdefault((name.rpartition(".")[0], param.shape[:1]), []).append(name)
    layers: dict[str, list[str]] = {}
    for (module, _), names in groups.items():
        layers[module if module and module not in layers else names[0]] = names
    return layers
