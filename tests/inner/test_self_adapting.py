from dataclasses import dataclass

import pytest
import torch

from metalearn import inner
from metalearn._tree import tree_detach, tree_map
from tests.cases import keys, relative_difference, sine_learner, task

RULES = [
    inner.KroneckerLinear(0.1, bias=True),
    inner.KroneckerNetwork(0.1, activation="tanh", normalise=True),
    inner.LearnedRate(inner.SGD(0.1), "parameter"),
    inner.Turtle(("grad", "loss", "grad_history"), hidden=(4,), lr=0.01),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_xi_takes_the_step_of_equation_4(rule, episodes):
    """Against autograd through the whole of L(theta_{t+1}(xi_t)), with the trajectory written
    out."""
    learner, episode = sine_learner(rule), task(episodes)
    meta, loss_at = tree_detach(learner.meta), learner.problem.support_loss
    xi, params, state, last = (
        meta.rule,
        meta.init,
        rule.init_state(meta.rule, meta.init, keys()[0]),
        None,
    )
    for step in range(4):
        grads, loss = torch.func.grad_and_value(loss_at)(params, meta.shared, episode, step)
        if step > 0:

            def loss_after(xi, last=last, step=step):
                updates, _ = rule.update(
                    xi, last["grads"], last["state"], last["params"], last["loss"], step - 1
                )
                moved = {name: last["params"][name] + update for name, update in updates.items()}
                return loss_at(moved, meta.shared, episode, step)

            slope = torch.func.grad(loss_after)(xi)
            xi = tree_map(lambda value, gradient: value - 0.3 * gradient, xi, slope)
        last = {"grads": grads, "state": state, "params": params, "loss": loss}
        updates, state = rule.update(xi, grads, state, params, loss, step)
        params = {name: param + updates[name] for name, param in params.items()}

    adapting = sine_learner(inner.SelfAdapting(rule, lr=0.3), num_steps=4)
    with torch.no_grad():
        for own, start in zip(adapting.rule.parameters(), learner.rule.parameters(), strict=True):
            own.copy_(start)
    adapted = adapting.adapt(tree_map(lambda leaf: leaf[None], episode.support), keys=keys(1))
    assert relative_difference(adapted.state["xi"], tree_map(lambda leaf: leaf[None], xi)) < 1e-10
    assert relative_difference(adapted.params, tree_map(lambda leaf: leaf[None], params)) < 1e-12


@dataclass(frozen=True)
class Backwards(inner.KroneckerLinear):
    """The same updates, named in the opposite order."""

    def update(self, *args):
        updates, state = super().update(*args)
        return dict(reversed(updates.items())), state


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_the_order_of_updates_does_not_matter(batching, episodes):
    rules = [inner.SelfAdapting(kind(0.1), lr=0.1) for kind in (inner.KroneckerLinear, Backwards)]
    one, other = (
        sine_learner(rule, num_steps=3, batching=batching).estimate(episodes) for rule in rules
    )
    assert relative_difference(one.gradient, other.gradient) < 1e-10


def test_one_step_is_the_rules_own(episodes):
    rule = inner.KroneckerLinear(0.1)
    ours, plain = (
        sine_learner(each).adapt(episodes.support, 1)
        for each in (inner.SelfAdapting(rule, lr=5.0), rule)
    )
    assert relative_difference(ours.params, plain.params) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: inner.SelfAdapting(inner.KroneckerLinear(0.1), lr=0.0),
            ValueError,
            "SelfAdapting's lr",
        ),
        (
            lambda: sine_learner(inner.SelfAdapting(inner.SGD(0.1), lr=0.1)),
            ValueError,
            "have meta-parameters to adapt",
        ),
        (lambda: inner.SelfAdapting(0.1, lr=0.1), TypeError, "SelfAdapting(SGD(lr=0.01), ...)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
