"""The gradient of the last inner step by first derivatives alone: DARTS, SAMA."""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from metalearn._fields import Checked, Positive
from metalearn._tree import tree_add, tree_map, tree_zeros_like
from metalearn.functional import grad_and_value, vjp
from metalearn.inner._step import take_step
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._curvature import difference
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem


@dataclass(frozen=True)
class OneStep(MetaGradient, Checked):
    """The gradient through the last inner step, without second derivatives: DARTS, SAMA.

    With g the support loss's gradient before that step and u(g) the rule's update, v = (du/dg)^T
    dquery/dphi, and `shared` gets dquery/dshared + (d^2 support / dphi dshared) v, with the product
    as a difference of first derivatives of the support loss at phi + h v and phi - h v, h = epsilon
    / |v|. It is the gradient to `shared` of `Unrolled(truncate=1)` up to an error of order
    epsilon^2, and exact where the support loss is quadratic in phi. Of `SGD` v is -lr dquery/dphi,
    as in T1-T2 and DARTS; of `Adam` it is SAMA's, with its corrections for bias. A rule that reads
    the loss is differentiated by it too.

    Beside the inner loop it costs three first derivatives, of the query loss and of the support
    loss, and keeps the activations of one pass, whatever the number of steps. Kernels without
    second derivatives do. `Continued(OneStep())` with `num_steps=1` alternates steps of the model
    and of what is learned, as the papers do.

    Args:
        epsilon: Norm of the steps to either side, positive. Rounding makes errors of the order of
            the gradient's times 1 / epsilon.

    Raises:
        TypeError: If `epsilon` is no number.
        ValueError: If it is not positive.

    References:
        Liu et al., "DARTS: differentiable architecture search", ICLR 2019. Luketina et al.,
        "Scalable gradient-based tuning of continuous regularization hyperparameters", ICML 2016
        (T1-T2). Choe et al., "Making scalable meta learning practical", NeurIPS 2023 (SAMA).
    """

    epsilon: Annotated[Positive, "The papers' is 0.01."] = 0.01

    reaches = frozenset({"shared"})
    traits = Traits(repeats_losses=True, order=1)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        params, state = problem.begin(meta, episode.support, key)
        last = problem.num_steps - 1
        for step in range(last):
            params, state, *_ = take_step(
                problem, meta, params, state, episode, step, fresh=step > 0
            )

        def loss_of(params: Params, shared: Params) -> Tensor:
            return problem.support_loss(params, shared, episode, last)

        def advance(grads: Params, loss: Tensor) -> Any:
            return problem.rule.advance(meta.rule, grads, state, params, loss, last)

        (grads, slope), loss = grad_and_value(loss_of, argnums=(0, 1))(params, meta.shared)
        (ended, last_state), pull = vjp(advance, grads, loss)
        (ended_bar, shared_bar), query_loss = grad_and_value(problem.query_loss, argnums=(0, 1))(
            ended, meta.shared, episode
        )
        grads_bar, loss_bar = pull((ended_bar, tree_zeros_like(last_state)))
        if meta.shared:

            def slope_at(params: Params) -> Params:
                return grad_and_value(loss_of, argnums=1)(params, meta.shared)[0]

            mixed = difference(slope_at, params, grads_bar, self.epsilon)
            shared_bar = tree_add(shared_bar, tree_add(mixed, tree_map(loss_bar.mul, slope)))
        gradient = tree_zeros_like(meta)._replace(shared=shared_bar)
        return Estimate(gradient, query_loss, carry, {}, ended, last_state)
