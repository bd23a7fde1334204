"""Learned random masks: which output units of every layer a task may change."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._checks import check_bool, check_positive
from metalearn.functional import uniform
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree

_FOR_THE_RULE = 0x2545F4914F6CDD1D
"""Turns a task's key into another one, so that a wrapped rule draws numbers of its own."""


@dataclass(frozen=True)
class Masked(Wrapper):
    """A rule whose updates pass through a binary mask on output units, drawn once a task with learned probabilities.

    Unit j of a layer is updated with probability sigmoid(zeta_j), its row (filter) of the weight together with its
    element of the bias. Logits zeta start at 0 and are learned through the Gumbel-softmax distribution.
    Meta-parameters are `{"mask": {<module>: {"logits": [units]}}, "rule": ...}`, the rule's own under "rule".

    Args:
        rule: The rule whose updates are masked.
        temperature: Of the Gumbel-softmax distribution, positive; near 0 the mask is binary and its gradient noisy.
        hard: Whether the mask is rounded to 0 or 1, with the gradient of the unrounded one (straight-through).

    Raises:
        TypeError: If `rule` is no update rule, or `hard` no bool.
        ValueError: If the temperature is not positive.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace", ICML 2018 (MT-net).
        Jang et al., "Categorical reparameterization with Gumbel-softmax", ICLR 2017.
    """

    temperature: float = 1.0
    hard: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("Masked's temperature", self.temperature, fix="The paper's is Masked(rule, temperature=1.0).")
        check_bool("Masked's hard", self.hard)

    def init_meta(self, params: Params) -> PyTree:
        """Return logits of zero for every layer, and the rule's own meta-parameters."""
        logits = {
            layer: {"logits": params[names[0]].new_zeros(params[names[0]].shape[:1])}
            for layer, names in _layers(params).items()
        }
        return {"mask": logits, "rule": self.rule.init_meta(params)}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the task's masks `[units]` by layer, and the rule's state."""
        masks = {
            layer: self._sample(of["logits"], key, stream) for stream, (layer, of) in enumerate(meta["mask"].items())
        }
        return {"mask": masks, "rule": self.rule.init_state(meta["rule"], params, key ^ _FOR_THE_RULE)}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the rule's updates where the mask lets them through."""
        updates, rule_state = self.rule.update(meta["rule"], grads, state["rule"], params, loss, step)
        masks = {name: state["mask"][layer] for layer, names in _layers(params).items() for name in names}
        masked = {name: _rows(masks[name], update) * update for name, update in updates.items()}
        return masked, {"mask": state["mask"], "rule": rule_state}

    def adapted_fraction(self, meta: PyTree) -> Tensor:
        """Return the expected fraction of output units that a task changes, a scalar.

        Args:
            meta: The rule's learned meta-parameters, such as `learner.meta.rule`.

        References:
            Lee and Choi, ICML 2018, Figure 4.
        """
        return torch.cat([layer["logits"].reshape(-1) for layer in meta["mask"].values()]).sigmoid().mean()

    def _sample(self, logits: Tensor, key: Tensor, stream: int) -> Tensor:
        """Return a mask from the binary Gumbel-softmax distribution, `[units]`."""
        # The difference of two Gumbel variables is logistic: one number a unit is enough.
        noise = uniform(key, logits.shape, stream, dtype=logits.dtype).logit()
        soft = torch.sigmoid((logits + noise) / self.temperature)
        return (soft > 0.5).to(soft) + (soft - soft.detach()) if self.hard else soft


def _layers(params: Params) -> dict[str, list[str]]:
    """Return parameters by the layer that owns them; those with another number of rows are layers of their own."""
    layers: dict[str, list[str]] = {}
    for name, param in params.items():
        module = name.rpartition(".")[0] or name
        alike = module not in layers or params[layers[module][0]].shape[:1] == param.shape[:1]
        layers.setdefault(module if alike else name, []).append(name)
    return layers


def _rows(mask: Tensor, update: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (update.dim() - mask.dim()))
