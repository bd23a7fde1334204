"""Learned rates around any rule: per scalar, tensor or element, and per step."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import check_choice
from metalearn._fields import Check, CountOrNone
from metalearn._step_number import row_of_step
from metalearn._tree import over_first_axes
from metalearn.inner._sgd import SGD
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class LearnedRate(Wrapper):
    """A rule whose rate is learned: the update is alpha * u, with u the rule's at rate 1.

    The rate is learned as it is, without logarithm or clamp, so it may become negative. It starts
    at the rate of the wrapped rule (`SGD(lr)`'s lr; 1 for a rule that has none), with which the two
    rules are equal. Meta-parameters are `{"rate": ..., "rule": ...}`, the rule's own under "rule".

    Args:
        rule: The rule whose updates are scaled.
        per: What has a rate of its own: "scalar", one for all; "tensor", one for every parameter
            tensor; "parameter", one for every element.
        num_steps: Number of steps with rates of their own; the last holds for all later ones. None
            shares one rate among all steps.

    Raises:
        TypeError: If `rule` is not an update rule.
        ValueError: If `per` is none of the three, or `num_steps` is below 1.

    References:
        Li et al., "Meta-SGD: learning to learn quickly for few-shot learning", arXiv 2017
        (per="parameter"). Antoniou et al., "How to train your MAML", ICLR 2019 (per="tensor",
        num_steps).
    """

    per: Annotated[str, Check(check_choice, ("scalar", "tensor", "parameter"))] = "scalar"
    num_steps: Annotated[CountOrNone, "Leave it out to share one rate among all steps."] = None

    @property
    def elementwise(self) -> bool:
        """Whether the wrapped rule is, and all steps share their rates."""
        return self.rule.elementwise and self.num_steps is None

    def init_meta(self, params: Params) -> PyTree:
        """Return rates at the wrapped rule's own, `[num_steps, ...]` if they are per step."""
        start, rule = self.rule.split_rate()
        steps = () if self.num_steps is None else (self.num_steps,)

        def rate(param: Tensor) -> Tensor:
            return param.new_full(steps + (param.shape if self.per == "parameter" else ()), start)

        rates = {name: rate(param) for name, param in params.items()}
        return {
            "rate": rate(next(iter(params.values()))) if self.per == "scalar" else rates,
            "rule": rule.init_meta(params),
        }

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the wrapped rule's state."""
        _, rule = self.rule.split_rate()
        return rule.init_state(meta["rule"], params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the wrapped rule's update times the step's rates."""
        _, rule = self.rule.split_rate()
        updates, state = rule.update(meta["rule"], grads, state, params, loss, step)
        return {
            name: over_first_axes(self._rate(meta, name, step), update) * update
            for name, update in updates.items()
        }, state

    def _rate(self, meta: PyTree, name: str, step: int) -> Tensor:
        rate = meta["rate"] if isinstance(meta["rate"], torch.Tensor) else meta["rate"][name]
        return rate if self.num_steps is None else row_of_step(rate, step)


def MetaSGD(lr: float) -> LearnedRate:  # noqa: N802
    """Gradient descent with one learned rate for every parameter element, all starting at `lr`.

    Args:
        lr: Start of the rates, positive.

    References:
        Li et al., "Meta-SGD: learning to learn quickly for few-shot learning", arXiv 2017.
    """
    return LearnedRate(SGD(lr), per="parameter")
