"""The LSTM meta-learner: the parameters are the cell state of an LSTM that every element shares."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import check_between
from metalearn._fields import Check, Checked, Count, NotNegative, Number
from metalearn.inner._base import UpdateRule
from metalearn.inner._coordinates import flatten, init_linear, preprocess, unflatten
from metalearn.types import Params, PyTree

NUM_INPUTS = 4
"""Columns of the first layer: processed gradient and processed loss."""


@dataclass(frozen=True)
class LSTM(UpdateRule, Checked):
    """The LSTM meta-learner: theta_{t+1} = f_t * theta_t - i_t * gradient, with learned gates.

    All elements share the weights of two layers. The first is an LSTM that sees the processed
    gradient and loss. Its output h enters the gates with the parameter and the previous gate value:
    i_t = sigmoid(w_I [h, theta, i_{t-1}] + b_I), and f_t likewise. Previous gate values start at 0.
    The learned initial cell state is `Meta.init`.

    The rule starts near gradient descent at rate `lr`: b_I = logit(lr), b_F = `forget_bias`, and
    w_I and w_F are drawn from U[-r, r] with r = `gate_range`. Estimators of order 1 give the
    published gradient, those of order 2 the exact one.

    Args:
        lr: Initial input gate, between 0 and 1.
        hidden_size: Width of the first layer, at least 1.
        forget_bias: Initial bias of the forget gate; the parameters shrink by a fraction
            sigmoid(-forget_bias) per step.
        gate_range: Bound of the gates' initial weights, at least 0; 0.01 in the thesis' code. With
            0 the rule starts exactly as gradient descent, but the first layer gets no gradient
            until the gates' weights have moved.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `lr` is not strictly between 0 and 1, `hidden_size` is below 1, or
            `gate_range` negative.

    References:
        Ravi and Larochelle, "Optimization as a model for few-shot learning", ICLR 2017. Huisman,
        "Revisiting learned optimizers in few-shot settings", thesis, Leiden University 2021 (eqs.
        8-11).
    """

    lr: Annotated[
        float, Check(check_between, 0, 1), "It is a gate's value: LSTM(lr=0.01), say."
    ] = 0.01
    hidden_size: Count = 20
    forget_bias: Number = 10.0
    gate_range: NotNegative = 0.01

    def init_meta(self, params: Params) -> PyTree:
        """Return the weights of both layers."""
        like, width = next(iter(params.values())), self.hidden_size
        biases = {"input": math.log(self.lr / (1 - self.lr)), "forget": self.forget_bias}
        lstm = init_linear(NUM_INPUTS + width, 4 * width, like)
        gates = {}
        for name, bias in biases.items():
            weight = like.new_empty(1, width + 2).uniform_(-self.gate_range, self.gate_range)
            gates[name] = {"weight": weight, "bias": like.new_full((1,), bias)}
        return {"lstm": lstm, "gates": gates}

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return zeros: hidden and cell state `[n, hidden_size]`, and the gates' values `[n]`."""
        vector = torch.zeros_like(flatten(params, params))
        matrix = vector[:, None].expand(-1, self.hidden_size)
        return {"hidden": matrix, "cell": matrix, "input": vector, "forget": vector}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return (f - 1) * theta - i * gradient."""
        theta, grad = flatten(params, params), flatten(grads, params)
        losses = preprocess(loss.to(grad.dtype)).expand(len(grad), 2)
        inputs = torch.cat([preprocess(grad), losses], 1)
        hidden, cell = _lstm_cell(meta["lstm"], inputs, state["hidden"], state["cell"])
        input_gate = _gate(meta["gates"]["input"], hidden, theta, state["input"])
        forget_gate = _gate(meta["gates"]["forget"], hidden, theta, state["forget"])
        # sigmoid(-x) is 1 - sigmoid(x) without cancellation.
        update = -torch.sigmoid(-forget_gate) * theta - torch.sigmoid(input_gate) * grad
        gates = {"input": torch.sigmoid(input_gate), "forget": torch.sigmoid(forget_gate)}
        return unflatten(update, params), {"hidden": hidden, "cell": cell, **gates}


def _lstm_cell(layer: Params, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    gates = F.linear(torch.cat([x, hidden], 1), layer["weight"], layer["bias"])
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, 1)
    cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * candidate.tanh()
    return output_gate.sigmoid() * cell.tanh(), cell


def _gate(weights: Params, hidden: Tensor, theta: Tensor, previous: Tensor) -> Tensor:
    """Return a gate's value before its sigmoid, `[n]`."""
    columns = torch.cat([hidden, theta[:, None], previous[:, None]], 1)
    return F.linear(columns, weights["weight"], weights["bias"]).squeeze(1)
