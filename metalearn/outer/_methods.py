"""The papers' methods: `MetaLearner` with their choices filled in."""

from collections.abc import Callable

import torch.nn as nn
from torch import Tensor
from typing_extensions import Unpack

from metalearn._checks import invalid
from metalearn.inner import Masked, UpdateRule, Wrapper
from metalearn.inner._t_net import transforms
from metalearn.outer._base import MetaGradient
from metalearn.outer._checks._options import Options, method
from metalearn.outer._head import head
from metalearn.outer._implicit import Implicit
from metalearn.outer._learner import MetaLearner
from metalearn.outer._parameter_difference import ParameterDifference
from metalearn.outer._select import select, trainable
from metalearn.outer._solvers import CG, Solver
from metalearn.outer._unrolled import Unrolled


@method
def MAML(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    estimator: MetaGradient = Unrolled(),
    **options: Unpack[Options],
) -> MetaLearner:
    """Return model-agnostic meta-learning (MAML): learn the start of all parameters.

    Args:
        model: Any module.
        criterion: `(output, y) -> scalar`.
        rule: The update rule; the paper's is `inner.SGD`.
        estimator: How the exact gradient is computed: `Stepwise()` needs less memory.
        options: Further arguments of `MetaLearner`, `num_steps` among them.

    References:
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017.
    """
    return MetaLearner(model, criterion, rule, estimator=estimator, **options)


@method
def FOMAML(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    **options: Unpack[Options],
) -> MetaLearner:
    """Return first-order MAML: `MAML` with support gradients taken as constants.

    Its arguments are those of `MAML`.

    References:
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017,
        section 5.2.
    """
    return MetaLearner(model, criterion, rule, estimator=Unrolled(order=1), **options)


@method
def ANIL(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    estimator: MetaGradient = Unrolled(),
    **options: Unpack[Options],
) -> MetaLearner:
    """Return almost-no-inner-loop (ANIL): `MAML` in which the head alone adapts.

    The head is `fast=`, or else the model's only child named head, fc, classifier or output, or
    else the module whose trainable parameters were registered last. Matrices T of `inner.t_net` do
    not adapt. The arguments are those of `MAML`.

    Raises:
        ValueError: If that module is the model itself, or has no weight matrix, and `fast` is not
            given.

    References:
        Raghu et al., "Rapid learning or feature reuse? Towards understanding the effectiveness of
        MAML", ICLR 2020.
    """
    if isinstance(model, nn.Module) and "fast" not in options:
        options["fast"] = head(model, "ANIL")
    return MetaLearner(model, criterion, rule, estimator=estimator, **options)


@method
def HyperRepresentation(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    estimator: MetaGradient = Unrolled(),
    **options: Unpack[Options],
) -> MetaLearner:
    """Return a learned representation: `ANIL` with a head that every task trains from zero.

    The head's start is zero and is not learned. The paper's rule is
    `inner.LearnedRate(inner.SGD(0.1))`. Its variants are other arguments:

    - The approximate hypergradient, which takes the trained head as a constant, is
      `estimator=Unrolled(truncate=0)`. It gives no gradient to a rate, so use `inner.SGD(0.1)`.
    - Training sets alone are tasks from `data.SupportAsQuery`.
    - Joint training is on these, with `num_steps=1` and `estimator=Continued(Joint(), horizon=4,
      staggered=False)`: representation and heads step at once, on episodes that stay for four
      steps.

    Raises:
        ValueError: If the head, found as in `ANIL`, is the model itself or has no weight matrix.

    References:
        Franceschi et al., "A bridge between hyperparameter optimization and learning-to-learn",
        2017.
    """
    if isinstance(model, nn.Module) and "fast" not in options:
        options["fast"] = head(model, "HyperRepresentation")
    options.setdefault("learn_init", False)
    learner = MetaLearner(model, criterion, rule, estimator=estimator, **options)
    for start in learner.meta.init.values():
        nn.init.zeros_(start)
    return learner


@method
def IMAML(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    strength: float = 2.0,
    solver: Solver = CG(),
    proximal: str = "every_step",
    system_strength: float | None = None,
    tolerance: float | None = None,
    **options: Unpack[Options],
) -> MetaLearner:
    """Return implicit MAML: `MAML` with the gradient at the solution of a proximal inner problem.

    The paper takes 16 steps of `inner.SGD(0.1)` on Omniglot. Its code is `num_steps=17,
    proximal="last_step", system_strength=12.0, solver=CG(5, damping=1.0)`. The first five options
    are those of `Implicit`, the other arguments those of `MAML`.

    References:
        Rajeswaran et al., "Meta-learning with implicit gradients", NeurIPS 2019.
    """
    estimator = Implicit(strength, solver, proximal, system_strength, tolerance=tolerance)
    return MetaLearner(model, criterion, rule, estimator=estimator, **options)


@method
def Reptile(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    keep_state: bool = False,
    **options: Unpack[Options],
) -> MetaLearner:
    """Return Reptile: the start moves towards the adapted parameters.

    As in the paper, every inner step has its own mini-batch by `support_batches`, and the outer
    step is `torch.optim.SGD(lr=epsilon)`. The authors' code is
    `rule=inner.Adam(1e-3, betas=(0.0, 0.999)), keep_state=True`. The other arguments are those of
    `MAML`.

    References:
        Nichol et al., "On first-order meta-learning algorithms", arXiv 2018.
    """
    return MetaLearner(model, criterion, rule, estimator=ParameterDifference(keep_state), **options)


@method
def TNet(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    estimator: MetaGradient = Unrolled(),
    **options: Unpack[Options],
) -> MetaLearner:
    """Return a T-net: `MAML` on `inner.t_net(model)`, whose matrices T never adapt.

    They do not even if `fast` names them. The arguments are those of `MAML`.

    Raises:
        ValueError: If the model has no T.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018.
    """
    if isinstance(model, nn.Module):
        if not (constant := transforms(model)):
            fix = "Write TNet(inner.t_net(model), ...)."
            raise invalid("T-net's model", "have a matrix T after its layers", "none", fix)
        chosen = select("fast", options.get("fast", "*"), trainable(model))
        options["fast"] = [name for name in chosen if name not in constant]
    return MetaLearner(model, criterion, rule, estimator=estimator, **options)


@method
def MTNet(  # noqa: N802
    model: nn.Module,
    criterion: Callable[..., Tensor] | None,
    rule: UpdateRule,
    *,
    estimator: MetaGradient = Unrolled(),
    **options: Unpack[Options],
) -> MetaLearner:
    """Return an MT-net: a `TNet` with a masked rule.

    The mask's temperature is 1, unless the rule has an `inner.Masked` in it already.

    Raises:
        ValueError: If the model has no T.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018.
    """
    masked = rule if _has_mask(rule) else Masked(rule)
    return TNet(model, criterion, masked, estimator=estimator, **options)


def _has_mask(rule: UpdateRule) -> bool:
    return isinstance(rule, Masked) or (isinstance(rule, Wrapper) and _has_mask(rule.rule))
