"""A learned rule as an ordinary PyTorch optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._tree import tree_detach, tree_flatten, tree_leaves, tree_map, tree_names
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
    """Return an optimizer that applies a meta-learned rule in any training loop.

    It takes the steps of `adapt`: `optimizer.step(closure)`, or `backward()` and then `optimizer.step()` if the rule
    does not use the loss. Parameters without a gradient count as having one of zero. Every group has a factor "lr" of
    its updates, 1 if not given, which learning rate schedulers change.

    Args:
        rule: The rule.
        meta: Its learned meta-parameters, such as `learner.meta.rule`; copied.
        named_parameters: `module.named_parameters()`, or groups `{"params": <named parameters>, "lr": 1.0}`. A rule
            whose meta-parameters belong to elements or layers needs the names and shapes that it was learned for; LSTM
            and Turtle serve any module.
        key: Key of the rule's random numbers, an int64 scalar; drawn from PyTorch's generator if not given.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the parameters are not those that `meta` is for.

    >>> from metalearn import inner
    >>> module = torch.nn.Linear(2, 1)
    >>> optimizer = as_optimizer(inner.SGD(0.1), {}, module.named_parameters())
    >>> module(torch.ones(3, 2)).mean().backward()
    >>> optimizer.step()
    """
    return RuleOptimizer(rule, meta, named_parameters, key=key)


class RuleOptimizer(torch.optim.Optimizer):
    """What `as_optimizer` returns. The rule's state is `state["rule"]`, the number of steps taken `state["step"]`."""

    state: Any

    def __init__(self, rule: UpdateRule, meta: PyTree, named_parameters: Any, *, key: Tensor | None = None) -> None:
        if not isinstance(rule, UpdateRule):
            fix = "Pass learner.problem.rule, say."
            raise TypeError(invalid("as_optimizer's rule", "be an update rule", repr(rule), fix))
        groups = list(named_parameters)
        if groups and isinstance(groups[0], dict):
            groups = [{**group, "params": list(group["params"])} for group in groups]
        for entry in groups[0]["params"] if groups and isinstance(groups[0], dict) else groups:
            if not isinstance(entry, tuple):
                fix = "Pass module.named_parameters()."
                raise TypeError(invalid("parameters", "be named", f"{type(entry).__name__} without a name", fix))
        super().__init__(groups, {"lr": 1.0})
        self._rule, self._meta = rule, tree_map(torch.clone, tree_detach(meta))
        params = tree_detach(self._named())
        _check_meta(rule, self._meta, params)
        key = draw_keys(1)[0] if key is None else key
        device = next(iter(params.values())).device
        self.state["rule"] = rule.init_state(self._meta, params, key.to(device))
        self.state["step"] = 0
        self._reads_loss = _reads_loss(rule, self._meta, params, self.state["rule"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Apply the rule once.

        Args:
            closure: Computes the loss with its gradients, and returns it. Without it the gradients are those there.

        Returns:
            The loss, if there is a closure.

        Raises:
            RuntimeError: If the rule uses the loss and there is no closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if loss is None and self._reads_loss:
            fix = "Write optimizer.step(closure), with a closure that calls backward() and returns the loss."
            raise RuntimeError(invalid(f"a step of {self._rule}", "be given the loss, which it uses", "none", fix))
        params = self._named()
        grads = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in params.items()}
        seen = next(iter(params.values())).new_zeros(()) if loss is None else loss.detach()
        state = self.state["rule"], self.state["step"]
        updates, self.state["rule"] = self._rule.update(
            self._meta, grads, state[0], tree_detach(params), seen, state[1]
        )
        self.state["step"] += 1
        for group in self.param_groups:
            for name, param in zip(group["param_names"], group["params"], strict=True):
                param.add_(group["lr"] * updates[name])
        return loss

    def _named(self) -> Params:
        return {
            name: param
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
        }


def _check_meta(rule: UpdateRule, meta: PyTree, params: Params) -> None:
    """Raise unless the meta-parameters are shaped as the rule's own for these parameters."""
    with torch.random.fork_rng(devices=[]):
        expected = rule.init_meta(params)
    wanted, got = (_shapes(tree) for tree in (expected, meta))
    if tree_flatten(meta)[1] == tree_flatten(expected)[1] and wanted == got:
        return
    different = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))[0]
    shapes = f"{got.get(different, 'nothing')} where {rule} has {wanted.get(different, 'nothing')}, at {different!r}"
    fix = "Pass the parameters that it was learned for, under the same names."
    raise ValueError(invalid("meta", "belong to the rule and the parameters", shapes, fix))


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in zip(tree_names(tree), tree_leaves(tree), strict=True)}


def _reads_loss(rule: UpdateRule, meta: PyTree, params: Params, state: PyTree) -> bool:
    """Return whether the rule's update or next state depends on the loss."""
    with torch.enable_grad():
        loss = next(iter(params.values())).new_ones(()).requires_grad_()
        grads = {name: torch.ones_like(param) for name, param in params.items()}
        outputs = tree_leaves(rule.update(meta, grads, state, params, loss, 0))
        depends = any(leaf.requires_grad for leaf in outputs)
    return depends or "loss" in rule.as_values
