"""The contract suites find what they promise to find."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch._guards import detect_fake_mode
from torch.utils.checkpoint import checkpoint

from metalearn import inner, models, outer, testing
from metalearn._tree import tree_map
from metalearn.types import Batch


class Checkpointed(nn.Linear):
    """A layer that is computed again in the backward pass."""

    def __init__(self):
        super().__init__(1, 1)

    def forward(self, x):
        return checkpoint(
            lambda x: torch.tanh(super(Checkpointed, self).forward(x)), x, use_reentrant=False
        )


class Kept(nn.Linear):
    """A layer that computes with a weight in a list."""

    def __init__(self):
        super().__init__(1, 1)
        self.weights = [self.weight.detach()]

    def forward(self, x):
        return F.linear(x, self.weights[0], self.bias) + super().forward(x)


@dataclass(frozen=True)
class Broken(inner.UpdateRule):
    """Gradient descent with a learned factor and one defect."""

    defect: str

    def init_meta(self, params):
        first = next(iter(params.values()))
        other = torch.ones(()) if self.defect == "another dtype" else first.new_ones(())
        return {"factor": first.new_ones(()), "other": other}

    def init_state(self, meta, params, key):
        return {"count": next(iter(params.values())).new_zeros(())}

    def update(self, meta, grads, state, params, loss, step):
        factor = meta["factor"] * (1 if self.defect == "unused" else meta["other"])
        updates = {name: -0.1 * factor * grad for name, grad in grads.items()}
        if self.defect == "detached":
            updates = {name: update.detach() * factor for name, update in updates.items()}
        if self.defect == "missing":
            updates.popitem()
        if self.defect == "shape":
            updates = {name: update.sum() for name, update in updates.items()}
        if self.defect == "impure":
            state["count"].add_(1)
        if self.defect == "random":
            updates = {name: update * torch.rand(()) for name, update in updates.items()}
        if self.defect == "dtype":
            state = tree_map(torch.Tensor.double, state)
            updates = tree_map(torch.Tensor.double, updates)
        if self.defect == "new parameters":
            updates = {name: params[name] + update for name, update in updates.items()}
        if self.defect == "structure":
            state = (state["count"],)
        return updates, state


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        ("unused", "every meta-parameter of the rule gets a gradient"),
        ("detached", "equals finite differences"),
        ("missing", "updates are named as the parameters"),
        ("shape", "updates are shaped as the parameters"),
        ("impure", "update leaves its arguments as they are"),
        ("random", "update is a function of its arguments alone"),
        ("dtype", "everything is of the parameters' dtype"),
        ("structure", "the state keeps its structure"),
        ("new parameters", "an update is what is added to the parameters, not the new ones"),
        ("another dtype", "init_meta returns tensors of the parameters' dtype"),
    ],
)
def test_a_broken_rule_is_found(defect, check):
    with pytest.raises(AssertionError) as raised:
        testing.check_update_rule(Broken(defect), compile=False)
    assert check in str(raised.value)


@dataclass(frozen=True)
class Signed(inner.UpdateRule):
    """The sign of the gradient, whose square root has no derivative at zero."""

    def update(self, meta, grads, state, params, loss, step):
        return {
            name: -0.1 * grad / (grad.square().sqrt() + 1e-3) for name, grad in grads.items()
        }, state


def test_a_rule_that_is_nan_at_dead_units_is_found():
    with pytest.raises(AssertionError, match="finite at gradients of zero"):
        testing.check_update_rule(Signed(), compile=False)


@dataclass(frozen=True)
class OfOneTask(inner.UpdateRule):
    """It claims to be elementwise, and counts the steps of one task only."""

    elementwise = True

    def init_state(self, meta, params, key):
        return {"count": next(iter(params.values())).new_zeros(())}

    def update(self, meta, grads, state, params, loss, step):
        updates = {name: -0.01 * grad for name, grad in grads.items()}
        return updates, {"count": state["count"] + 1}


def test_a_rule_that_only_claims_to_be_elementwise_is_found():
    with pytest.raises(AssertionError, match="does to many tasks what it does to each"):
        testing.check_update_rule(OfOneTask(), compile=False)


def test_a_surrogate_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="surrogate 'msk' is a path of meta-parameters"):
        testing.check_update_rule(inner.Masked(inner.SGD(0.1)), surrogate="msk", compile=False)


def test_the_same_rule_without_a_defect_passes():
    testing.check_update_rule(Broken("none"), compile=False)


@dataclass(frozen=True)
class TakesValues(inner.UpdateRule):
    """Gradient descent on a gradient taken as a value, which it says."""

    as_values = frozenset({"grads"})

    def update(self, meta, grads, state, params, loss, step):
        return {name: -0.1 * grad.detach() for name, grad in grads.items()}, state


def test_a_rule_that_takes_values_is_compared_as_such():
    testing.check_update_rule(TakesValues(), compile=False)


@dataclass(frozen=True)
class Uncapturable(inner.SGD):
    """Gradient descent that works on tensors with values alone."""

    lr: float = 0.1

    def advance(self, meta, grads, state, params, loss, step):
        if detect_fake_mode(list(params.values())) is not None:
            raise NotImplementedError("values are needed")
        return super().advance(meta, grads, state, params, loss, step)


def test_a_rule_that_cannot_be_captured():
    testing.check_update_rule(Uncapturable(), compile=False)
    with pytest.raises(AssertionError, match="captured as one graph.*values are needed"):
        testing.check_update_rule(Uncapturable())


@dataclass(frozen=True)
class Wrong(outer.Unrolled):
    """The exact gradient with one defect."""

    defect: str = ""

    def __call__(self, problem, meta, episode, key, carry):
        estimate = super().__call__(problem, meta, episode, key, carry)
        gradient = estimate.gradient
        if self.defect == "scaled":
            gradient = tree_map(lambda leaf: 1.0001 * leaf, gradient)
        if self.defect == "missing":
            gradient = gradient._replace(init={})
        if self.defect == "nan":
            gradient = tree_map(lambda leaf: leaf / 0, gradient)
        if self.defect == "zero":
            gradient = gradient._replace(rule=tree_map(torch.zeros_like, gradient.rule))
        return estimate._replace(gradient=gradient)


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        ("scaled", "equals finite differences"),
        ("missing", "the gradient is structured as what it belongs to"),
        ("nan", "the estimate is finite"),
        ("zero", "rule gets a gradient if and only if it is reached"),
    ],
)
def test_a_wrong_estimator_is_found(defect, check):
    with pytest.raises(AssertionError) as raised:
        testing.check_meta_gradient(Wrong(defect=defect), compile=False)
    assert check in str(raised.value)


def test_peak_live_bytes_counts_what_lives_together():
    def one_after_another():
        for _ in range(5):
            torch.zeros(1000)

    def together():
        return [torch.zeros(1000) for _ in range(5)]

    assert testing.peak_live_bytes(one_after_another) == 4000
    assert testing.peak_live_bytes(together) == 20_000


def test_a_pure_model_passes_and_its_check_is_measured():
    model, batch = models.mlp(1, [8], 1), Batch(torch.randn(5, 1), torch.randn(5, 1))
    found = testing.check_model(model, batch, F.mse_loss)
    assert 0 <= found.error <= found.tolerance
    assert not found.recomputes
    assert found.seconds > 0
    assert found.peak_bytes > sum(param.nbytes for param in model.parameters())


def test_a_model_that_is_computed_again_is_said_to_be():
    batch = Batch(torch.randn(5, 1), torch.randn(5, 1))
    assert testing.check_model(Checkpointed(), batch, F.mse_loss).recomputes


def test_a_model_without_second_derivatives_is_told_of_order_1():
    model, batch = (
        nn.Sequential(nn.Linear(1, 1), nn.Hardsigmoid()),
        Batch(torch.randn(5, 1), torch.randn(5, 1)),
    )
    with pytest.raises(
        AssertionError, match="must have second derivatives; got derivative for aten::hard"
    ):
        testing.check_model(model, batch, F.mse_loss)
    testing.check_model(model, batch, F.mse_loss, order=1)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_an_impure_model_is_found(order):
    batch = Batch(torch.randn(5, 1), torch.randn(5, 1))
    with pytest.raises(AssertionError, match=r"in the place of \['model.weight'\]"):
        testing.check_model(Kept(), batch, F.mse_loss, order=order)
    with pytest.raises(AssertionError, match="model must keep no running statistics"):
        testing.check_model(nn.BatchNorm1d(1), batch, F.mse_loss, order=order)
