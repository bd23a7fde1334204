"""Hyperparameters of any rule, learned by the outer loop."""

import copy
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from metalearn._checks import check_choice, invalid
from metalearn._tree import tree_leaves, tree_map
from metalearn.inner._base import UpdateRule
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Learned(Wrapper):
    """A rule of which the outer loop learns some hyperparameters: `Learned(Momentum(0.1), "momentum")`.

    They start at the rule's own values and are learned as they are, without logarithm or clamp. Meta-parameters are
    `{<name>: ..., "rule": ...}`, the rule's own under "rule". For rates per tensor, element or step see `LearnedRate`.

    Args:
        rule: The rule.
        names: Names of its hyperparameters, one or a tuple; each a number or a tuple of numbers.

    Raises:
        TypeError: If `rule` is no update rule, or a hyperparameter is no number.
        ValueError: If the rule has no hyperparameter of that name.
    """

    names: str | tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rule: Any = self.rule
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        object.__setattr__(self, "names", names)
        if not names:
            raise ValueError(invalid("Learned's names", "be at least one", "none", 'Write Learned(rule, "lr"), say.'))
        for name in names:
            check_choice("Learned's names", name, [field.name for field in fields(rule)])
            values = tree_leaves(getattr(self.rule, name))
            if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
                got = repr(getattr(self.rule, name))
                raise TypeError(invalid(f"{type(self.rule).__name__}'s {name}", "be a number to be learned", got))

    def init_meta(self, params: Params) -> PyTree:
        """Return the hyperparameters at the rule's own values, each a scalar."""
        like = next(iter(params.values()))
        own = {name: tree_map(lambda v: like.new_tensor(float(v)), getattr(self.rule, name)) for name in self.names}
        return {**own, "rule": self.rule.init_meta(params)}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the rule's state."""
        return self._rule(meta).init_state(meta["rule"], params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the update of the rule with the learned hyperparameters."""
        return self._rule(meta).update(meta["rule"], grads, state, params, loss, step)

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return 1 and this rule: what it learns may be the rate."""
        return 1.0, self

    def _rule(self, meta: PyTree) -> UpdateRule:
        rule: Any = copy.copy(self.rule)
        for name in self.names:
            # Past the checks of __post_init__, which are for numbers.
            object.__setattr__(rule, name, meta[name])
        return rule
