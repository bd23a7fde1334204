"""The gradient where the inner loop begins: inner and outer problem take their steps at once."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metalearn._fields import Checked
from metalearn.functional import grad_and_value
from metalearn.inner._step import take_step
from metalearn.outer._base import MetaGradient, Traits
from metalearn.types import Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class Joint(MetaGradient, Checked):
    """The query loss's own gradient before the inner steps: joint training of all parameters.

    With phi_0 where the inner loop begins, the gradient is that of query(phi_0, shared), and the
    loss is that too; how phi depends on what is learned is left out. Within `Continued`, and with
    `num_steps=1`, it makes phi and what is shared step at once, each by the gradient at the same
    point. Where both losses are one, on tasks of `data.SupportAsQuery`, that is multi-task
    learning, with a head for every task: the "Classic" training of Franceschi et al., with
    `Continued(Joint(), horizon=4, staggered=False)`, on batches that stay for four steps.
    `Unrolled(truncate=0)` takes the gradient after the inner steps, so that the two alternate.

    References:
        Franceschi et al., "A bridge between hyperparameter optimization and learning-to-learn",
        arXiv 2017 (appendix A, "Classic"). Baxter, "Learning internal representations", COLT 1995.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.HyperRepresentation(
    ...     models.mlp(1, [8], 1), F.mse_loss, inner.SGD(0.1), num_steps=1,
    ...     estimator=outer.Continued(Joint(), horizon=4, staggered=False))
    >>> tasks = data.SupportAsQuery(data.Sinusoid(k_shot=5, num_query=1))
    >>> batches = (batch for batch in tasks.batches(4) for _ in range(4))
    >>> learner(next(batches)).backward()
    """

    reaches = frozenset({"init", "shared"})

    @property
    def traits(self) -> Traits:
        """All tasks at once, but nothing is known of subclasses; first derivatives."""
        return Traits(leafwise=type(self) is Joint, order=1, stepless=True)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's gradient, and take the inner steps."""

        def objective(meta: Meta) -> Any:
            params, state = problem.begin(meta, episode.support, key)
            return problem.query_loss(params, meta.shared, episode), (params, state)

        gradient, (loss, (params, state)) = grad_and_value(objective, has_aux=True)(meta)
        for step in range(problem.num_steps):
            params, state, *_ = take_step(
                problem, meta, params, state, episode, step, fresh=step > 0
            )
        return Estimate(gradient, loss, carry, {}, params, state)
