"""Hyperparameters of any rule, learned in the outer loop."""

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_choice, invalid, mistyped
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_leaves, tree_map
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Learned(Wrapper):
    """A rule with hyperparameters that the outer loop learns: `Learned(Momentum(0.1), "momentum")`.

    They start at the rule's values and are learned directly, without logarithm or clamp.
    Meta-parameters are `{<name>: ..., "rule": ...}`, with the rule's own under "rule". For rates
    per tensor, element or step see `LearnedRate`.

    Args:
        rule: The rule.
        names: Names of its hyperparameters, one or a tuple; each a number or a tuple of numbers.

    Raises:
        TypeError: If `rule` is not an update rule, or a hyperparameter not a number.
        ValueError: If the rule lacks a hyperparameter, or its updates do not depend on one.
    """

    names: str | tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rule: Any = self.rule
        names = (self.names,) if isinstance(self.names, str) else self.names
        fix = 'Write Learned(rule, "lr"), say.'
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            condition = "be a name or a tuple of them"
            raise mistyped("Learned's names", condition, brief(self.names), fix)
        object.__setattr__(self, "names", tuple(names))
        if not names or len(set(names)) < len(names):
            raise invalid("Learned's names", "be at least one, each once", tuple(names), fix)
        types = _field_types(type(rule))
        for name in names:
            check_choice("Learned's names", name, types)
            value = getattr(rule, name)
            numbers = all(isinstance(leaf, int | float) for leaf in tree_leaves(value))
            if not (numbers and _of_floats(types[name])):
                what = f"{type(rule).__name__}'s {name}"
                raise mistyped(what, "be a number to be learned", repr(value))
        if unused := _unused(self):
            fix = "It decides where something else starts, which is learned anyway."
            got = f"{unused}, which it does not use"
            raise invalid(f"{type(rule).__name__}'s updates", "depend on what is learned", got, fix)

    def init_meta(self, params: Params) -> PyTree:
        """Return the hyperparameters as scalars at the rule's values."""
        like = next(iter(params.values()))
        values = {name: getattr(self.rule, name) for name in self.names}
        own = tree_map(lambda value: like.new_tensor(float(value)), values)
        return {**own, "rule": self.rule.init_meta(params)}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the rule's state."""
        return self._rule(meta).init_state(meta["rule"], params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the update of the rule with the learned hyperparameters."""
        return self._rule(meta).update(meta["rule"], grads, state, params, loss, step)

    def _rule(self, meta: PyTree) -> UpdateRule:
        # This skips __post_init__, which checks numbers; copy.copy does not compile in torch 2.11.
        rule: Any = object.__new__(type(self.rule))
        for field in fields(self.rule):  # type: ignore[arg-type]
            value = meta[field.name] if field.name in self.names else getattr(self.rule, field.name)
            object.__setattr__(rule, field.name, value)
        return rule


def _field_types(rule: Any) -> dict[str, Any]:
    """Return the types of a rule's fields by name, as texts where they cannot be resolved."""
    hints = {}
    with suppress(Exception):
        hints = get_type_hints(rule)
    return {field.name: hints.get(field.name, field.type) for field in fields(rule)}


def _of_floats(kind: Any) -> bool:
    """Return whether a type is a float, a tuple of floats or an optional float."""
    if isinstance(kind, str):
        return "float" in kind
    return kind is float or any(map(_of_floats, get_args(kind)))


def _unused(learned: Learned) -> list[str]:
    """Return the hyperparameters on which two steps on a small tensor do not depend."""
    params = grads = {"weight": torch.ones(2, 2)}
    with random_numbers_kept(), torch.enable_grad():
        meta = tree_map(lambda leaf: leaf.requires_grad_(), learned.init_meta(params))
        state = learned.init_state(meta, params, torch.tensor(0))
        total = torch.zeros(())
        for step in range(2):
            updates, state = learned.update(meta, grads, state, params, torch.ones(()), step)
            total = total + updates["weight"].sum()
            params = {"weight": params["weight"] + updates["weight"]}
        total.backward()
    own = {name: tree_leaves(meta[name]) for name in learned.names}
    return [name for name, leaves in own.items() if all(leaf.grad is None for leaf in leaves)]
