"""The protocol of update rules: how one task's gradient becomes a change of its parameters."""

from abc import ABC, abstractmethod

from torch import Tensor

from metalearn.types import Params, PyTree


class UpdateRule(ABC):
    """How one task's gradient becomes a change of its parameters.

    A rule is a frozen dataclass that holds hyperparameters only. What the outer loop learns about
    it (`meta`) and what it remembers within a task (`state`) are pytrees of tensors, in the
    parameters' dtype and device, that travel through the arguments. All methods are pure, so that
    every estimator can differentiate, vectorise and compile them.
    `metalearn.testing.check_update_rule` checks a rule of your own.
    """

    @property
    def as_values(self) -> frozenset[str]:
        """Which of "grads", "params" and "loss" `update` uses detached, so that no derivative flows
        through them.
        """
        return frozenset()

    def init_meta(self, params: Params) -> PyTree:
        """Return the start of what the outer loop learns about the rule.

        Args:
            params: The fast parameters, by name.

        Returns:
            Pytree of tensors; `{}` if there is nothing to learn.
        """
        return {}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the rule's memory at the start of a task.

        Args:
            meta: What the outer loop has learned, shaped as `init_meta`.
            params: The fast parameters at their start.
            key: The task's random key, an int64 scalar for `metalearn.functional.uniform`.

        Returns:
            Pytree of floating tensors; `()` if the rule is stateless.
        """
        return ()

    @abstractmethod
    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the update of one step, which is added to the parameters, and the next state.

        Args:
            meta: What the outer loop has learned, shaped as `init_meta`.
            grads: Gradient of the support loss at `params`.
            state: The rule's memory, shaped as `init_state`.
            params: The fast parameters before the step.
            loss: Support loss at `params`, a scalar.
            step: Number of the step, from 0; a Python int.

        Returns:
            Updates named and shaped as `params`, and the next state, shaped as `state`.
        """

    def split_rate(self) -> tuple[float, "UpdateRule"]:
        """Return `(rate, rule)` such that this rule's updates are `rate` times those of `rule`."""
        return 1.0, self
