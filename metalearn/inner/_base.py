"""The protocol of update rules: how one task's gradient becomes a change of its parameters."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import Tensor

from metalearn._tree import tree_add
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
        """Which of "grads", "params" and "loss" `update` detaches, so that no derivative flows."""
        return frozenset()

    @property
    def elementwise(self) -> bool:
        """Whether each element of updates and states depends on the same element of inputs alone.

        All methods but `init_meta` are then given many tasks at once, without `vmap`: everything
        has a leading task axis, and what is a scalar for one task, such as the loss, is
        `[num_tasks]`.
        """
        return False

    def __init_subclass__(cls, **options: Any) -> None:
        """Inherit what is said of methods only together with them."""
        super().__init_subclass__(**options)
        if not _is_said_last(cls, "advance", {"update"}.__contains__):
            cls.advance = UpdateRule.advance  # type: ignore[method-assign]
        if not _is_said_last(cls, "elementwise", _is_given_many_tasks):
            cls.elementwise = UpdateRule.elementwise  # type: ignore[method-assign]

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

    def advance(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the parameters after one step, and the next state.

        It is `update`, added to the parameters. A rule may define it too where one operation does
        both; a subclass with another `update` does not inherit it.

        Args:
            meta: As for `update`, like all others.
            grads: Gradient of the support loss at `params`.
            state: The rule's memory.
            params: The fast parameters before the step.
            loss: Support loss at `params`, a scalar.
            step: Number of the step, from 0.

        Returns:
            New parameters, named and shaped as `params`, and the next state.
        """
        updates, state = self.update(meta, grads, state, params, loss, step)
        return tree_add(params, updates), state

    def split_rate(self) -> tuple[float, "UpdateRule"]:
        """Return `(rate, rule)` such that this rule's updates are `rate` times those of `rule`."""
        return 1.0, self


def _is_said_last(rule: type, name: str, concerns: Callable[[str], bool]) -> bool:
    """Return whether no class before the one that defines `name` defines a method of concern."""
    for base in rule.__mro__:
        own = vars(base)
        if name in own:
            return True
        if any(isinstance(value, FunctionType) and concerns(each) for each, value in own.items()):
            return False
    return True


def _is_given_many_tasks(method: str) -> bool:
    """Return whether a rule's method, or what it may call, is given many tasks if elementwise."""
    return method not in ("init_meta", "split_rate") and not method.startswith("__")
