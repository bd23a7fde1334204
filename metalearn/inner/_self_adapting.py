"""Rules whose own meta-parameters descend within a task."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import Positive
from metalearn._tree import tree_leaves, tree_map, tree_zeros_like
from metalearn.functional import vjp
from metalearn.inner._wrapper import Wrapper
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class SelfAdapting(Wrapper):
    """A rule whose meta-parameters xi descend before every step but the first.

    A step is theta_{t+1} = theta_t + u_xi(g_t), and then xi = xi - lr grad_xi L(theta_{t+1}). The
    support loss depends on xi only through the last update, so its gradient is the update's
    derivative applied to the gradient at theta_{t+1}, which the next step receives anyway. The
    outer loop learns the initial xi.

    It must be outermost, since the derivative would miss what another wrapper does to its updates.
    Around `KroneckerLinear` or `KroneckerNetwork` it is Arnold et al.'s method; around
    `LearnedRate(SGD(lr))` it is hypergradient descent from a learned rate (Alpha-MAML).

    Args:
        rule: The rule.
        lr: Learning rate of its meta-parameters, positive.

    Raises:
        TypeError: If `rule` is not an update rule.
        ValueError: If `lr` is not positive and finite, or the rule is a `SelfAdapting` itself.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (eqs. 3-4). Baydin et al., "Online learning rate adaptation with hypergradient
        descent", ICLR 2018. Behl et al., "Alpha MAML: adaptive model-agnostic meta-learning", arXiv
        2019.
    """

    outermost: ClassVar[bool] = True

    lr: Annotated[Positive, "Write SelfAdapting(KroneckerLinear(0.5), lr=0.5), say."]

    def init_meta(self, params: Params) -> PyTree:
        """Return the rule's meta-parameters.

        Raises:
            ValueError: If there are none.
        """
        meta = self.rule.init_meta(params)
        if not tree_leaves(meta):
            fix = "Write SelfAdapting(LearnedRate(SGD(0.01)), lr=1e-4), say."
            raise invalid("SelfAdapting's rule", "have meta-parameters to adapt", self.rule, fix)
        return meta

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return xi, the rule's state, and zeros in place of the last step's arguments."""
        state = self.rule.init_state(meta, params, key)
        zeros = tree_zeros_like(params)
        loss = next(iter(params.values())).new_zeros(())
        last = {"grads": zeros, "state": state, "params": zeros, "loss": loss}
        return {"xi": meta, "rule": state, "last": last}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the update of the rule at the new xi."""
        xi = state["xi"] if step == 0 else self._descend(state, grads, step)
        updates, rule_state = self.rule.update(xi, grads, state["rule"], params, loss, step)
        last = {"grads": grads, "state": state["rule"], "params": params, "loss": loss}
        return updates, {"xi": xi, "rule": rule_state, "last": last}

    def _descend(self, state: PyTree, grads: Params, step: int) -> PyTree:
        last = state["last"]

        def updates(xi: PyTree) -> Params:
            seen = last["grads"], last["state"], last["params"], last["loss"]
            named, _ = self.rule.update(xi, *seen, step - 1)
            return {name: named[name] for name in grads}  # in the cotangents' order

        _, pull = vjp(updates, state["xi"])
        (gradient,) = pull(grads)
        return tree_map(lambda value, slope: value - self.lr * slope, state["xi"], gradient)
