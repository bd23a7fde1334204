"""The steps of PyTorch's optimizers as functions of tensors, which a graph can hold."""

from collections.abc import Callable
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalearn._tree import over_first_axes
from metalearn.outer._capture import has_hooks

State = dict[str, Tensor]
"""What an optimizer keeps of one parameter, by the names in `optimizer.state`."""


class Kind(NamedTuple):
    """One class of optimizers.

    Attributes:
        numbers: Names of a group's settings that may change from step to step.
        refused: Settings that a graph does not have, with the only value that it takes.
        new_state: From a parameter and its group's settings to its first state.
        step: From a parameter, its gradient, its state and its group's settings, of which the
            numbers are tensors, to what both become.
    """

    numbers: tuple[str, ...]
    refused: dict[str, Any]
    new_state: Callable[[Tensor, dict[str, Any]], State]
    step: Callable[[Tensor, Tensor, State, dict[str, Any]], tuple[Tensor, State]]


def _sgd_state(param: Tensor, group: dict[str, Any]) -> State:
    return {"momentum_buffer": torch.zeros_like(param)} if group["momentum"] else {}


def _sgd(param: Tensor, grad: Tensor, state: State, group: dict[str, Any]) -> tuple[Tensor, State]:
    grad = grad + group["weight_decay"] * param
    if state:
        average = group["momentum"] * state["momentum_buffer"] + grad
        grad = grad + group["momentum"] * average if group["nesterov"] else average
        state = {"momentum_buffer": average}
    return param - group["lr"] * grad, state


def _adam_state(param: Tensor, group: dict[str, Any]) -> State:
    on_device = group["capturable"] or group["fused"]
    device = param.device if on_device else torch.device("cpu")
    return {
        "step": torch.zeros((), dtype=torch.float32, device=device),
        "exp_avg": torch.zeros_like(param),
        "exp_avg_sq": torch.zeros_like(param),
    }


def _adam(param: Tensor, grad: Tensor, state: State, group: dict[str, Any]) -> tuple[Tensor, State]:
    step, (beta1, beta2) = state["step"] + 1, group["betas"]
    if group["decoupled_weight_decay"]:
        param = param * (1 - group["lr"] * group["weight_decay"])
    else:
        grad = grad + group["weight_decay"] * param
    mean = state["exp_avg"] + (1 - beta1) * (grad - state["exp_avg"])
    square = beta2 * state["exp_avg_sq"] + (1 - beta2) * grad * grad
    # In float64, as PyTorch computes these numbers.
    first, second = (1 - beta ** step.double() for beta in (beta1, beta2))
    root = square.sqrt() / second.sqrt() + group["eps"]
    state = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
    return param - (group["lr"] / first) * (mean / root), state


_ADAM = Kind(
    ("lr", "betas", "eps", "weight_decay"),
    {"amsgrad": False, "maximize": False, "differentiable": False},
    _adam_state,
    _adam,
)
KINDS: dict[type[torch.optim.Optimizer], Kind] = {
    torch.optim.SGD: Kind(
        ("lr", "momentum", "weight_decay"),
        {"dampening": 0, "maximize": False, "differentiable": False},
        _sgd_state,
        _sgd,
    ),
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
}
"""Optimizers whose steps a graph can hold; subclasses may differ."""
STRUCTURE = (
    "nesterov",
    "decoupled_weight_decay",
    "capturable",
    "fused",
    *sorted({name for kind in KINDS.values() for name in kind.refused}),
)
"""Settings that a graph is made for; the others are its arguments, or of no matter to it."""


class Updates:
    """The step of an optimizer on tensors, without the optimizer, and the states that it has.

    Args:
        optimizer: The optimizer, whose missing states are made.
        leaves: What is learned, and tensors that require no grad.
        max_norm: Bound on the norm of the gradient; None for none.
        num_replicas: Number of replicas that are bounded each by itself; None if there are none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        leaves: list[Tensor],
        max_norm: float | None,
        num_replicas: int | None,
    ) -> None:
        self._kind, self._max_norm = KINDS[type(optimizer)], max_norm
        self._num_replicas = num_replicas
        self._settings = [_settings(group) for group in optimizer.param_groups]
        group_of = {
            id(param): index
            for index, group in enumerate(optimizer.param_groups)
            for param in group["params"]
        }
        learned = [index for index, leaf in enumerate(leaves) if leaf.requires_grad]
        self._places = [(index, group_of[id(leaves[index])]) for index in learned]
        self._leaves = leaves  # kept, so that no others come to have their identities
        self._last: tuple[list[float], Tensor] | None = None
        self._own_states(optimizer)

    def _own_states(self, optimizer: torch.optim.Optimizer) -> None:
        """Find the optimizer's states, and make those that it lacks."""
        self._owned: list[tuple[dict[str, Any], list[str]]] = []
        for index, group in self._places:
            state, leaf = optimizer.state[self._leaves[index]], self._leaves[index].detach()
            new = self._kind.new_state(leaf, self._settings[group])
            state.update({name: each for name, each in new.items() if state.get(name) is None})
            self._owned.append((state, list(new)))
        self._states: tuple[Tensor, ...] = ()
        self._kinds: list[Any] = []

    def states_now(self) -> tuple[Tensor, ...]:
        """Return the tensors of the optimizer's states."""
        return tuple([state[name] for state, names in self._owned for name in names])

    def structure_now(self, optimizer: torch.optim.Optimizer) -> list[Any]:
        """Return all that a graph depends on of an optimizer, beside tensors and numbers."""
        leaves = (self._leaves[index] for index, _ in self._places)
        theirs = map(optimizer.state.get, leaves)
        if not all(map(is_, theirs, (state for state, _ in self._owned))):  # loaded or cleared
            self._own_states(optimizer)
        states = self.states_now()
        if len(states) != len(self._states) or not all(map(is_, states, self._states)):
            self._states = states
            self._kinds = [(each.dtype, each.device, each.shape, each.stride()) for each in states]
        structure: list[Any] = [self._kinds, has_hooks(optimizer)]
        for group in optimizer.param_groups:
            for param in group["params"]:
                structure += id(param), param.requires_grad
            structure += [group.get(name) for name in STRUCTURE]
            structure.append(bool(group.get("momentum")))
        return structure

    def numbers_now(self, optimizer: torch.optim.Optimizer, device: torch.device) -> Tensor:
        """Return the numbers among the settings of all groups, `[num_groups * numbers]`."""
        numbers = [
            float(value)
            for group in optimizer.param_groups
            for name in self._kind.numbers
            for value in (group[name] if name == "betas" else (group[name],))
        ]
        if self._last is None or self._last[0] != numbers:
            self._last = numbers, torch.tensor(numbers, dtype=torch.float64, device=device)
        return self._last[1]

    def __call__(
        self,
        leaves: list[Tensor],
        gradients: list[Tensor],
        tensors: tuple[Tensor, ...],
        numbers: Tensor,
    ) -> None:
        """Write to the leaves, and to the tensors of states, what they are after the step."""
        left = iter(tensors)
        states = [{name: next(left) for name in names} for _, names in self._owned]
        gradients = [gradients[index] for index, _ in self._places]
        if self._max_norm is not None:
            gradients = clipped(gradients, self._max_norm, self._num_replicas)
        groups = self._groups_with(numbers)
        for (index, group), gradient, state in zip(self._places, gradients, states, strict=True):
            leaf, after = self._kind.step(leaves[index], gradient, state, groups[group])
            leaves[index].copy_(leaf)
            for name, tensor in after.items():
                state[name].copy_(tensor)

    def _groups_with(self, numbers: Tensor) -> list[dict[str, Any]]:
        """Return the settings of all groups, with numbers that are tensors."""
        left, groups = iter(numbers.unbind()), []
        for settings in self._settings:
            tensors = {
                name: (next(left), next(left)) if name == "betas" else next(left)
                for name in self._kind.numbers
            }
            groups.append({**settings, **tensors})
        return groups


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def clipped(gradients: list[Tensor], max_norm: float, num_replicas: int | None) -> list[Tensor]:
    """Return gradients of a norm of at most `max_norm`, each replica's by itself."""
    rows = 1 if num_replicas is None else num_replicas
    squares = torch.stack([each.reshape(rows, -1).square().sum(1) for each in gradients])
    scales = (max_norm / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1)
    if num_replicas is None:
        return [scales.squeeze(0) * each for each in gradients]
    return [over_first_axes(scales, each) * each for each in gradients]
