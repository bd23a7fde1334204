"""TURTLE: a small feed-forward network that proposes the update of every parameter element."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_choice, check_count, invalid, mistyped
from metalearn._fields import Check, Checked, Flag, Fraction, Positive
from metalearn._step_number import step_as
from metalearn.inner._activation import Activation, activate, check_activation
from metalearn.inner._base import UpdateRule
from metalearn.inner._coordinates import flatten, init_linear, preprocess, unflatten
from metalearn.inner._hyperparameters import replaced
from metalearn.types import Params, PyTree

WIDTHS = {
    "grad": 1,
    "processed_grad": 2,
    "loss": 1,
    "processed_loss": 2,
    "grad_history": 1,
    "update_history": 1,
    "step": 1,
}
"""Inputs to choose from, with their numbers of columns."""
HISTORIES = ("grad_history", "update_history")


@dataclass(frozen=True)
class Turtle(UpdateRule, Checked):
    """TURTLE: the update of every element is lr * net(inputs), one network for all of them.

    The network starts with the weights of `nn.Linear` and biases of zero. The thesis' TURTLE has a
    learned rate for every element: `LearnedRate(Turtle(), "parameter")` for one step, with
    `Turtle(("grad", "grad_history", "step"), beta=0.9)` inside for five steps and `Turtle(("grad",
    "grad_history"), beta=0.3)` for ten.

    Args:
        inputs: What the network sees of an element: "grad"; "processed_grad" (the log of its
            magnitude and its sign); the support loss, "loss" or "processed_loss"; "grad_history",
            the running mean h = beta h + (1 - beta) g, which starts at the first gradient and
            includes the current one, as in the thesis' code (its text uses the mean before the
            current gradient, which "grad" and this mean determine); "update_history", the running
            mean of the network's earlier outputs, from 0; "step", the number of the step.
        hidden: Widths of the hidden layers, each at least 1; () makes the network linear.
        activation: Between the layers: "relu", "tanh", "sigmoid", another name or any elementwise
            function.
        beta: Decay of the histories, from 0 to 1.
        lr: Factor of the network's output, positive.
        loss_as_value: Whether the meta-gradient treats the loss as a constant, as in the thesis'
            code, where derivatives pass through gradients only. At order 1 this is always so.
        applied_updates: Whether "update_history" is the mean of the actual changes of the
            parameters, as in the thesis' code, which include learned rates, clipping and masks of
            rules around this one.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an input is unknown or given twice, or a number is out of its range.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", thesis, Leiden University
        2021 (section 3.3).
    """

    inputs: tuple[str, ...] = ("grad",)
    hidden: tuple[int, ...] = (20, 20, 20, 20, 20)
    activation: Annotated[Activation, Check(check_activation)] = "relu"
    beta: Fraction = 0.9
    lr: Positive = 1.0
    loss_as_value: Flag = False
    applied_updates: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("inputs", "hidden"):
            given = getattr(self, name)
            if not isinstance(given, tuple | list):
                fix = 'Write Turtle(inputs=("grad", "step"), hidden=(20, 20)), say.'
                raise mistyped(f"Turtle's {name}", "be a tuple", brief(given), fix)
            object.__setattr__(self, name, tuple(given))
        for name in self.inputs:
            check_choice("Turtle's inputs", name, WIDTHS)
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise invalid("Turtle's inputs", "be at least one, each once", self.inputs)
        for width in self.hidden:
            check_count("Turtle's hidden widths", width, fix="Write hidden=(20, 20), say.")

    @property
    def as_values(self) -> frozenset[str]:
        """The loss, if it is seen as a constant."""
        sees_loss = not {"loss", "processed_loss"}.isdisjoint(self.inputs)
        return frozenset({"loss"} if self.loss_as_value and sees_loss else ())

    def init_meta(self, params: Params) -> PyTree:
        """Return the network's layers."""
        like = next(iter(params.values()))
        widths = [sum(WIDTHS[name] for name in self.inputs), *self.hidden, 1]
        return {"layers": [init_linear(*pair, like) for pair in pairwise(widths)]}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return histories `[n]` of all n elements, and the last parameters if they are needed."""
        names = [name for name in HISTORIES if name in self.inputs]
        if self.applied_updates and "update_history" in names:
            names.append("last")
        return {name: torch.zeros_like(flatten(params, params)) for name in names}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return lr times the network's output."""
        grad, loss = flatten(grads, params), loss.detach() if self.loss_as_value else loss
        state = self._look_back(state, grad, params, step)
        output = self._network(meta["layers"], self._columns(grad, loss, step, state)).squeeze(-1)
        if "update_history" in state and "last" not in state:
            state["update_history"] = self._average(state["update_history"], output)
        return unflatten(self.lr * output, params), state

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and the rule with a factor of 1."""
        return self.lr, replaced(self, {"lr": 1.0})

    def _look_back(self, state: PyTree, grad: Tensor, params: Params, step: int) -> PyTree:
        """Return the histories as the network sees them at this step."""
        state = dict(state)
        if "grad_history" in state:
            state["grad_history"] = self._average(state["grad_history"], grad) if step > 0 else grad
        if "last" in state:
            theta = flatten(params, params)
            if step > 0:
                change = theta - state["last"]
                state["update_history"] = self._average(state["update_history"], change)
            state["last"] = theta
        return state

    def _columns(self, grad: Tensor, loss: Tensor, step: int, state: PyTree) -> Tensor:
        """Return what the network sees, `[n, columns]`."""
        loss = loss.to(grad.dtype)  # criteria may compute in float32

        seen = {"grad": grad, "loss": loss, "step": step_as(grad, step), **state}

        def column(name: str) -> Tensor:
            value = seen[name.removeprefix("processed_")]
            value = value if name in seen else preprocess(value)
            return value.reshape(-1, WIDTHS[name]).expand(len(grad), -1)

        return torch.cat([column(name) for name in self.inputs], 1)

    def _network(self, layers: list[Params], x: Tensor) -> Tensor:
        for layer in layers[:-1]:
            x = activate(self.activation, F.linear(x, layer["weight"], layer["bias"]))
        return F.linear(x, layers[-1]["weight"], layers[-1]["bias"])

    def _average(self, mean: Tensor, new: Tensor) -> Tensor:
        return self.beta * mean + (1 - self.beta) * new
