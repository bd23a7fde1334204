"""A learned rule as an ordinary PyTorch optimizer."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import as_list, check_kind, check_number, invalid, message, mistyped
from metalearn._tree import tree_leaves, tree_map, tree_names
from metalearn.functional import draw_keys
from metalearn.inner._base import UpdateRule
from metalearn.types import Params, PyTree


def as_optimizer(
    rule: UpdateRule,
    meta: PyTree,
    named_parameters: Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]],
    *,
    key: Tensor | None = None,
) -> "RuleOptimizer":
    """Return an optimizer that applies a learned rule in any training loop.

    It takes the steps of `adapt`: call `optimizer.step(closure)`, or `backward()` and
    `optimizer.step()` if the rule does not use the loss. A missing gradient counts as zero, and
    parameters that do not require grad are left out. Every group multiplies its updates by "lr", 1
    by default, which learning rate schedulers change. `state_dict` holds the rule's state, but
    neither the rule nor its meta-parameters.

    Args:
        rule: The rule.
        meta: Its learned meta-parameters, such as `learner.meta.rule`; copied.
        named_parameters: `module.named_parameters()`, or groups `{"params": <named parameters>,
            "lr": 1.0}`. A rule with meta-parameters per element or layer needs the names and shapes
            that it was learned for; LSTM and Turtle fit any module.
        key: Key of the rule's random numbers, an int64 scalar; drawn from PyTorch's generator by
            default.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the parameters do not match `meta`, or two have the same name.

    >>> from metalearn import inner
    >>> module = torch.nn.Linear(2, 1)
    >>> optimizer = as_optimizer(inner.SGD(0.1), {}, module.named_parameters())
    >>> module(torch.ones(3, 2)).mean().backward()
    >>> optimizer.step()
    """
    return RuleOptimizer(rule, meta, named_parameters, key=key)


class RuleOptimizer(torch.optim.Optimizer):
    """What `as_optimizer` returns.

    The rule's state is `state["rule"]`, the number of steps taken `state["step"]`.
    """

    state: Any

    def __init__(
        self, rule: UpdateRule, meta: PyTree, named_parameters: Any, *, key: Tensor | None = None
    ) -> None:
        example = "learner.problem.rule, say"
        check_kind("as_optimizer's rule", rule, UpdateRule, "an update rule", example)
        is_tree = all(isinstance(leaf, Tensor) for leaf in tree_leaves(meta))
        if isinstance(meta, torch.nn.Module) or not is_tree:
            fix = "Pass learner.meta.rule."
            raise mistyped("meta", "be a tree of tensors", type(meta).__name__, fix)
        is_key = isinstance(key, Tensor) and key.dtype == torch.int64 and key.dim() == 0
        if not (key is None or is_key):
            fix = "Pass torch.tensor(7), say."
            raise mistyped("key", "be an int64 scalar tensor", brief(key), fix)
        super().__init__(_groups(named_parameters), {"lr": 1.0})
        params = self._values()
        like = next(iter(params.values()))
        expected = rule.init_meta({name: param.to("meta") for name, param in params.items()})
        _check_alike("meta", rule, meta, expected)
        self._rule, self._meta = (
            rule,
            tree_map(lambda leaf: leaf.detach().to(like, copy=True), meta),
        )
        key = draw_keys(1)[0] if key is None else key
        self.state["rule"] = rule.init_state(self._meta, params, key.to(like.device))
        self.state["step"] = 0
        self._reads_loss = _reads_loss(rule, self._meta, params, self.state["rule"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply the rule once.

        Args:
            closure: Computes the gradients and returns the loss. Without it, the current gradients
                are used.

        Returns:
            The closure's result, or None without a closure.

        Raises:
            RuntimeError: If the rule uses the loss and there is no closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if loss is None and self._reads_loss:
            what, condition = f"a step of {self._rule}", "be given the loss, which it uses"
            fix = "Write optimizer.step(closure), with a closure that calls backward() and returns "
            raise RuntimeError(message(what, condition, "none", f"{fix}the loss."))
        params, grads = self._values(), self._gradients()
        like = next(iter(params.values()))
        seen = 0.0 if loss is None else loss
        seen = torch.as_tensor(seen, dtype=like.dtype, device=like.device).detach()
        state, step = self.state["rule"], self.state["step"]
        updates, state = self._rule.update(self._meta, grads, state, params, seen, step)
        self.state.update(rule=state, step=step + 1)
        for name, param, rate in self._named():
            param.add_(rate * updates[name])
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse further groups, since the rule's state belongs to the first parameters."""
        if hasattr(self, "_rule"):
            fix = "Pass all groups to as_optimizer."
            condition = "be known from the start"
            raise RuntimeError(message("parameters", condition, "another group", fix))
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the `state_dict` of an optimizer with the same rule and parameters."""
        _check_alike("state", self._rule, state_dict["state"].get("rule"), self.state["rule"])
        own = self.state["rule"]
        # casts only what belongs to a parameter
        super().load_state_dict(state_dict)
        self.state["rule"] = tree_map(lambda leaf, like: leaf.to(like), self.state["rule"], own)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("_rule", "_meta", "_reads_loss")}
        return {**super().__getstate__(), **own}

    def _named(self) -> Iterator[tuple[str, Tensor, Any]]:
        for group in self.param_groups:
            for name, param in zip(group["param_names"], group["params"], strict=True):
                yield name, param, group["lr"]

    def _values(self) -> Params:
        """Return copies, since the rule may keep them while parameters change in place."""
        return {name: param.detach().clone() for name, param, _ in self._named()}

    def _gradients(self) -> Params:
        return {
            name: torch.zeros_like(param) if param.grad is None else param.grad.clone()
            for name, param, _ in self._named()
        }


def _groups(named_parameters: Any) -> list[dict[str, Any]]:
    """Return groups of named parameters that require grad.

    Raises:
        TypeError: If a parameter has no name.
        ValueError: If two have the same.
    """
    fix = "Pass module.named_parameters()."
    what = "be pairs of name and parameter"
    groups = as_list("named_parameters", named_parameters, what, fix=fix)
    if not (groups and isinstance(groups[0], dict)):
        groups = [{"params": groups}]
    for group in groups:
        if not {"params"} <= group.keys() <= {"params", "lr"}:
            example = 'Write {"params": module.named_parameters(), "lr": 0.5}.'
            raise invalid("a group", 'have "params" and perhaps "lr"', list(group), example)
        check_number('a group\'s "lr"', group.get("lr", 1.0))
    groups = [{**group, "params": list(group["params"])} for group in groups]
    entries = [entry for group in groups for entry in group["params"]]
    for entry in entries:
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)):
            raise mistyped("parameters", "be named", f"{type(entry).__name__} without a name", fix)
    counts = Counter(name for name, _ in entries)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        example = "Write module.named_parameters(prefix='head'), say."
        raise invalid("parameters", "have names of their own", f"{twice} twice", example)
    for group in groups:
        group["params"] = [entry for entry in group["params"] if entry[1].requires_grad]
    if not any(group["params"] for group in groups):
        raise invalid("parameters", "be at least one that requires grad", "none", fix)
    return [group for group in groups if group["params"]]


def _check_alike(what: str, rule: UpdateRule, got: PyTree, expected: PyTree) -> None:
    """Raise unless two trees have leaves of the same names and shapes."""
    ours, theirs = _shapes(expected), _shapes(got)
    names = sorted(ours.keys() | theirs.keys())
    if different := [name for name in names if ours.get(name) != theirs.get(name)]:
        name = different[0]
        own, other = ours.get(name, "nothing"), theirs.get(name, "nothing")
        got = f"{other} where it has {own}, at {name!r}"
        fix = "Pass the parameters that it was learned for, under the same names."
        raise invalid(what, f"belong to {rule} and the parameters", got, fix)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    named = zip(tree_names(tree), tree_leaves(tree), strict=True)
    return {name: tuple(leaf.shape) for name, leaf in named if isinstance(leaf, Tensor)}


def _reads_loss(rule: UpdateRule, meta: PyTree, params: Params, state: PyTree) -> bool:
    """Return whether the updates of the first two steps depend on the loss."""
    with torch.enable_grad():
        loss = next(iter(params.values())).new_ones(()).requires_grad_()
        grads = {name: torch.ones_like(param) for name, param in params.items()}
        first, state = rule.update(meta, grads, state, params, loss, 0)
        second, _ = rule.update(meta, grads, state, params, loss, 1)
        depends = any(leaf.requires_grad for leaf in tree_leaves((first, second)))
    return depends or "loss" in rule.as_values
