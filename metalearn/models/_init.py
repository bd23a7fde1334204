"""Another start of a module's weights and biases than PyTorch's."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from metalearn._checks import check_function, check_kind, invalid

M = TypeVar("M", bound=nn.Module)
FIX = "Write models.init_(model, biases=nn.init.zeros_), say."


def init_(
    model: M,
    *,
    weights: Callable[[Tensor], Any] | None = None,
    biases: Callable[[Tensor], Any] | None = None,
) -> M:
    """Fill a module's weights and biases by functions of `torch.nn.init`, before a learner is built
    of it.

    Weights are the parameters of two axes or more, in any layer; biases those that are named so, of
    layers that normalise too, whose scales stay as they are. The networks of TURTLE's code have
    biases of zero, those of MT-net weights from a normal distribution of standard deviation 0.01,
    redrawn beyond two standard deviations. `nn.init.trunc_normal_` takes these bounds as values, by
    default -2 and 2, which here cut nothing off.

    Args:
        model: Any module; it is changed in place.
        weights: Fills a weight in place, `nn.init.xavier_uniform_`, or
            `partial(nn.init.trunc_normal_, std=0.01, a=-0.02, b=0.02)`. None leaves weights as they
            are.
        biases: Fills a bias in place, `nn.init.zeros_`, say. None leaves biases as they are.

    Returns:
        The module itself.

    Raises:
        TypeError: If `model` is no module, or what fills is no function.
        ValueError: If nothing fills, there is nothing to fill, a function does not fill in place,
            or a weight is lazy, computed by a parametrization, or a matrix T of a T-net, which
            starts at the identity.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018, section 6.1 of its first version, arXiv:1801.05558v1.

    >>> from metalearn import models
    >>> torch.count_nonzero(init_(models.mlp(1, [40, 40], 1), biases=nn.init.zeros_)[0].bias)
    tensor(0)
    """
    _check(model, weights, biases)
    named = list(model.named_parameters())
    is_bias = {name: "bias" in name.rpartition(".")[2] for name, _ in named}
    chosen = {
        "weights": (
            weights,
            {name: param for name, param in named if param.dim() > 1 and not is_bias[name]},
        ),
        "biases": (biases, {name: param for name, param in named if is_bias[name]}),
    }
    for what, (fill, params) in chosen.items():
        if fill is not None and not params:
            raise invalid(f"init_'s {what}", "have something to fill", "none", f"Leave {what} out.")
    with torch.no_grad():
        for what, (fill, params) in chosen.items():
            for name, param in params.items() if fill is not None else ():
                _fill(what, fill, name, param)
    return model


def _fill(what: str, fill: Any, name: str, param: Tensor) -> None:
    version = param._version
    fill(param)
    if param._version == version:
        raise invalid(f"init_'s {what}", f"fill {name} in place", f"{fill!r}, which does not", FIX)


def _check(model: Any, weights: Any, biases: Any) -> None:
    from metalearn.inner._t_net import transforms  # which imports this package

    check_kind(
        "init_'s model",
        model,
        nn.Module,
        "an nn.Module",
        "the module itself: models.mlp(1, [40, 40], 1)",
    )
    for what, fill in (("weights", weights), ("biases", biases)):
        if fill is not None:
            check_function(
                f"init_'s {what}", fill, "be a function that fills a tensor in place", fix=FIX
            )
    if weights is None and biases is None:
        raise invalid("init_", "be given what to fill weights or biases by", "neither", FIX)
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        raise invalid(
            "model", "be initialised", f"lazy {lazy}", "Call it once on an example: model(x)."
        )
    if computed := [
        name or "itself" for name, module in model.named_modules() if is_parametrized(module)
    ]:
        fix = "Call init_ before the parametrization."
        raise invalid(
            "init_'s model", "have weights of its own", f"parametrizations of {computed}", fix
        )
    if transforms(model):
        fix = "Write inner.t_net(models.init_(model, ...))."
        raise invalid("init_'s model", "be a plain network", "a T-net", fix)
