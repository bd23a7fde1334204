"""A rule for every group of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_kind, did_you_mean, invalid, mistyped
from metalearn._patterns import matches
from metalearn.functional import derive_key
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import check_inside
from metalearn.types import Params, PyTree

EXAMPLE = 'Groups({"*bias": Adam(1e-3), "*": AdamW(1e-3)})'


@dataclass(frozen=True)
class Groups(UpdateRule):
    """A rule for every group of parameters: `Groups({"*bias": Adam(1e-3), "*": AdamW(1e-3)})`.

    A parameter belongs to the first pattern that its name matches. Patterns are those of a
    learner's `fast`: "*bias", "head" for all parameters in a module, "*" for the rest; a tied
    parameter has the first of its names. Each rule sees its own parameters alone:
    `Clipped(Groups(...), norm=1.0)` clips the whole gradient, a `Clipped` within a group that
    group's. A `LearnedRate` around all starts at 1, since each group has a rate already.
    Meta-parameters and state are tuples of the rules', in their order.

    Args:
        rules: The rules by pattern, in the order in which patterns are tried; kept as a tuple of
            pairs.

    Raises:
        TypeError: If `rules` is not a dict of update rules by pattern.
        ValueError: If it is empty or a rule must be outermost; once the parameters are known, if
            one matches no pattern, or no parameter is left to a pattern.
    """

    rules: Mapping[str, UpdateRule] | tuple[tuple[str, UpdateRule], ...]

    def __post_init__(self) -> None:
        pairs = self.rules.items() if isinstance(self.rules, Mapping) else self.rules
        condition = "be a dict of rules by pattern"
        if not (isinstance(self.rules, Mapping | tuple) and all(map(_is_pair, pairs))):
            raise mistyped("Groups' rules", condition, brief(self.rules), f"Write {EXAMPLE}.")
        if not pairs:
            raise invalid("Groups' rules", "be at least one", "none", f"Write {EXAMPLE}.")
        for pattern, rule in pairs:
            what = f"Groups' rule of {pattern!r}"
            check_kind(what, rule, UpdateRule, "an update rule", "SGD(lr=0.01), say")
            check_inside("Groups", rule)
        object.__setattr__(self, "rules", tuple(pairs))

    @property
    def as_values(self) -> frozenset[str]:
        """What any of the rules takes as values."""
        return frozenset().union(*(rule.as_values for _, rule in self._pairs))

    @property
    def elementwise(self) -> bool:
        """Whether all rules are."""
        return all(rule.elementwise for _, rule in self._pairs)

    def init_meta(self, params: Params) -> PyTree:
        """Return every rule's meta-parameters.

        Raises:
            ValueError: If a parameter matches no pattern, or none is left to a pattern.
        """
        groups = self._groups(params)
        if lost := [name for name in params if not any(name in group for _, group in groups)]:
            fix = 'Add "*": SGD(lr=0.01), say, at the end.'
            raise invalid("Groups", "have a rule for every parameter", f"none for {lost}", fix)
        for (pattern, _), (_, group) in zip(self._pairs, groups, strict=True):
            if not group:
                raise _superfluous(pattern, params)
        return tuple(rule.init_meta(group) for rule, group in groups)

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return every rule's state."""
        return tuple(
            rule.init_state(meta[index], group, derive_key(key, index)) if group else ()
            for index, (rule, group) in enumerate(self._groups(params))
        )

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the updates of every group by its rule."""
        updates: Params = {}
        states = list(state)
        for index, (rule, group) in enumerate(self._groups(params)):
            if group:
                seen = {name: grads[name] for name in group}, state[index], group, loss, step
                of_group, states[index] = rule.update(meta[index], *seen)
                updates |= of_group
        return {name: updates[name] for name in grads}, tuple(states)

    @property
    def _pairs(self) -> tuple[tuple[str, UpdateRule], ...]:
        return cast(Any, self.rules)

    def _groups(self, params: Params) -> list[tuple[UpdateRule, Params]]:
        """Return the rules, each with the parameters whose first pattern is its own."""
        groups: list[tuple[UpdateRule, Params]] = [(rule, {}) for _, rule in self._pairs]
        for name, param in params.items():
            fits = (i for i, (pattern, _) in enumerate(self._pairs) if matches(pattern, name))
            if (first := next(fits, None)) is not None:
                groups[first][1][name] = param
        return groups


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)


def _superfluous(pattern: str, params: Params) -> ValueError:
    """Return the error of a pattern to which no parameter is left."""
    if any(matches(pattern, name) for name in params):
        fix = "Put it first, or leave it out."
    else:
        fix = did_you_mean(pattern, params) or "Leave it out."
    got = f"none for {pattern!r} of {list(params)}"
    return invalid("every pattern of Groups", "have parameters of its own", got, fix)
