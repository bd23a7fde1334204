"""Hyperparameters of any rule, learned in the outer loop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import (
    check_between,
    check_choice,
    check_number,
    check_positive,
    did_you_mean,
    invalid,
    mistyped,
)
from metalearn._fields import Check
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_leaves, tree_map
from metalearn.functional import derive_key
from metalearn.inner._base import UpdateRule
from metalearn.inner._groups import Groups
from metalearn.inner._hyperparameters import hyperparameters, is_of_floats, replaced
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


class Space(NamedTuple):
    """A number's check, what is learned of it, and the way back to it."""

    check: Check
    start: Callable[[float], float]
    number: Callable[[Tensor], Tensor]


SPACES = {
    "linear": Space(Check(check_number), float, lambda learned: learned),
    "log": Space(Check(check_positive), math.log, torch.exp),
    "logit": Space(
        Check(check_between, 0, 1), lambda number: math.log(number / (1 - number)), torch.sigmoid
    ),
}


@dataclass(frozen=True)
class Learned(Wrapper):
    """A rule with hyperparameters that the outer loop learns: `Learned(Momentum(0.1), "momentum")`.

    They start at the rule's values. Meta-parameters are `{<name>: ..., "rule": ...}`, with the
    rule's own under "rule". For rates per element or step see `LearnedRate`.

    Args:
        rule: The rule.
        names: Names of its hyperparameters, one or a tuple; each a number or a tuple of numbers.
            Those of a rule or a schedule in it have dots: "rule.lr", "schedule.num_steps".
        space: What is learned of them: "linear", they themselves, without clamp; "log", the
            logarithms of positive numbers; "logit", those of the odds of numbers between 0 and 1.
        per: What has numbers of its own: "scalar", one for all; "tensor", one for every parameter
            tensor, of a rule that acts on each tensor alone.

    Raises:
        TypeError: If `rule` is not an update rule, or a hyperparameter not a number.
        ValueError: If the rule lacks a hyperparameter, or its updates do not depend on one, if
            `space` or `per` is unknown, a number is not in the space, or the rule does not act on
            each tensor alone.
    """

    names: str | tuple[str, ...]
    space: Annotated[str, Check(check_choice, tuple(SPACES))] = "linear"
    per: Annotated[str, Check(check_choice, ("scalar", "tensor"))] = "scalar"

    def __post_init__(self) -> None:
        super().__post_init__()
        names = (self.names,) if isinstance(self.names, str) else self.names
        fix = 'Write Learned(rule, "lr"), say.'
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            condition = "be a name or a tuple of them"
            raise mistyped("Learned's names", condition, brief(self.names), fix)
        object.__setattr__(self, "names", tuple(names))
        if not names or len(set(names)) < len(names):
            raise invalid("Learned's names", "be at least one, each once", tuple(names), fix)
        self._check_numbers()
        if self.per == "tensor" and not _acts_by_tensor(self.rule):
            fix = 'Leave per= out, or use LearnedRate(rule, per="tensor").'
            condition = "act on each tensor alone, as elementwise rules do"
            raise invalid('the rule of Learned(per="tensor")', condition, self.rule, fix)
        if unused := _unused(self):
            fix = "It decides where something else starts, which is learned anyway."
            got = f"{unused}, which it does not use"
            raise invalid(
                f"{type(self.rule).__name__}'s updates", "depend on what is learned", got, fix
            )

    def _check_numbers(self) -> None:
        """Raise unless every name is that of numbers, in the space."""
        known = hyperparameters(self.rule)
        numbers = [name for name, entry in known.items() if _are_numbers(*entry)]
        for name in self.names:
            if name not in numbers and _has_groups(self.rule) and not did_you_mean(name, numbers):
                inside = name.rpartition(".")[2]
                fix = f"Learn it in its group: Groups({{'*': Learned(AdamW(1e-3), {inside!r})}})."
                raise invalid("Learned's names", "be those of one rule", repr(name), fix)
            if name not in known:
                check_choice("Learned's names", name, numbers)
            value, what = known[name][0], f"{type(self.rule).__name__}'s {name}"
            if name not in numbers:
                raise mistyped(what, "be a number to be learned", repr(value))
            for leaf in tree_leaves(value):
                fix = f"Write Learned(rule, {name!r}), to learn it as it is."
                SPACES[self.space].check(f"{what} with space={self.space!r}", leaf, fix)

    def init_meta(self, params: Params) -> PyTree:
        """Return what is learned of the hyperparameters, scalars at the rule's values."""
        known, space = hyperparameters(self.rule), SPACES[self.space]

        def start(name: str, like: Tensor) -> PyTree:
            return tree_map(lambda number: like.new_tensor(space.start(number)), known[name][0])

        def starts(name: str) -> PyTree:
            if self.per == "scalar":
                return start(name, next(iter(params.values())))
            return {tensor: start(name, param) for tensor, param in params.items()}

        return {**{name: starts(name) for name in self.names}, "rule": self.rule.init_meta(params)}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the rule's state, by tensor if each has its own numbers."""
        if self.per == "scalar":
            return self._rule(meta).init_state(meta["rule"], params, key)
        return {
            name: self._rule(meta, name).init_state(
                meta["rule"], {name: param}, derive_key(key, index)
            )
            for index, (name, param) in enumerate(params.items())
        }

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the update of the rule with the learned hyperparameters."""
        if self.per == "scalar":
            return self._rule(meta).update(meta["rule"], grads, state, params, loss, step)
        updates: Params = {}
        states = {}
        for name, param in params.items():
            seen = {name: grads[name]}, state[name], {name: param}, loss, step
            of_tensor, states[name] = self._rule(meta, name).update(meta["rule"], *seen)
            updates |= of_tensor
        return updates, states

    def _rule(self, meta: PyTree, tensor: str | None = None) -> UpdateRule:
        """Return the rule with the learned numbers, of a tensor if each has its own."""
        learned = {n: meta[n] if tensor is None else meta[n][tensor] for n in self.names}
        return replaced(self.rule, tree_map(SPACES[self.space].number, learned))


def _are_numbers(value: Any, kind: Any) -> bool:
    """Return whether a hyperparameter of this type is a number or a tuple of numbers."""
    return is_of_floats(kind) and all(isinstance(leaf, int | float) for leaf in tree_leaves(value))


def _has_groups(rule: UpdateRule) -> bool:
    """Return whether a rule is one of groups, or around one."""
    while isinstance(rule, Wrapper):
        rule = rule.rule
    return isinstance(rule, Groups)


def _acts_by_tensor(rule: UpdateRule) -> bool:
    """Return whether a rule does to each tensor what it does to that tensor alone."""
    while isinstance(rule, Learned):
        rule = rule.rule
    return rule.elementwise


def _unused(learned: Learned) -> list[str]:
    """Return the hyperparameters on which two steps on a small tensor do not depend."""
    with random_numbers_kept(), torch.enable_grad():
        try:
            meta = _differentiated(learned)
        except ValueError:  # as of Groups, which have other parameters
            return []
    own = {name: tree_leaves(meta[name]) for name in learned.names}
    return [name for name, leaves in own.items() if all(leaf.grad is None for leaf in leaves)]


def _differentiated(learned: Learned) -> PyTree:
    """Return meta-parameters with their gradients, where the two steps depend on them."""
    params = grads = {"weight": torch.ones(2, 2)}
    meta = tree_map(lambda leaf: leaf.requires_grad_(), learned.init_meta(params))
    state = learned.init_state(meta, params, torch.tensor(0))
    total = torch.zeros(())
    for step in range(2):
        updates, state = learned.update(meta, grads, state, params, torch.ones(()), step)
        total = total + updates["weight"].sum()
        params = {"weight": params["weight"] + updates["weight"]}
    total.backward()
    return meta
