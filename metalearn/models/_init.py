"""Initial weights and biases other than PyTorch's."""

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
    """Fill a module's weights and biases with functions of `torch.nn.init`.

    Call it before building a learner. Weights are the parameters with two or more axes, biases
    those named so, including the ones of normalisation layers, whose scales are left alone.
    TURTLE's code has biases of zero; MT-net's has weights from a normal distribution of standard
    deviation 0.01, truncated at two standard deviations. `nn.init.trunc_normal_` takes these bounds
    as values; its defaults -2 and 2 would truncate nothing here.

    Args:
        model: Any module; it is changed in place.
        weights: Fills a weight in place, such as `nn.init.xavier_uniform_` or
            `partial(nn.init.trunc_normal_, std=0.01, a=-0.02, b=0.02)`. None leaves weights
            unchanged.
        biases: Fills a bias in place, such as `nn.init.zeros_`. None leaves biases unchanged.

    Returns:
        The module itself.

    Raises:
        TypeError: If `model` is not a module, or a fill is not a function.
        ValueError: If no fill is given, there is nothing to fill, a function does not fill in
            place, a weight is lazy or parametrized, or the model is a T-net, whose T starts at the
            identity.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018, section 6.1 of its first version, arXiv:1801.05558v1.

    >>> from metalearn import models
    >>> torch.count_nonzero(init_(models.mlp(1, [40, 40], 1), biases=nn.init.zeros_)[0].bias)
    tensor(0)
    """
    _check(model, weights, biases)
    chosen: dict[str, list[tuple[str, Tensor]]] = {"weights": [], "biases": []}
    for name, param in model.named_parameters():
        if "bias" in name.rpartition(".")[2]:
            chosen["biases"].append((name, param))
        elif param.dim() > 1:
            chosen["weights"].append((name, param))
    fills = {"weights": weights, "biases": biases}
    fills = {what: fill for what, fill in fills.items() if fill is not None}
    for what in fills:
        if not chosen[what]:
            raise invalid(f"init_'s {what}", "have something to fill", "none", f"Leave {what} out.")
    with torch.no_grad():
        for what, fill in fills.items():
            for named in chosen[what]:
                _fill(what, fill, *named)
    return model


def _fill(what: str, fill: Any, name: str, param: Tensor) -> None:
    version = param._version
    fill(param)
    if param._version == version:
        raise invalid(f"init_'s {what}", f"fill {name} in place", f"{fill!r}, which does not", FIX)


def _check(model: Any, weights: Any, biases: Any) -> None:
    from metalearn.inner._t_net import transforms  # imports this package

    example = "the module itself: models.mlp(1, [40, 40], 1)"
    check_kind("init_'s model", model, nn.Module, "an nn.Module", example)
    for what, fill in (("weights", weights), ("biases", biases)):
        if fill is not None:
            condition = "be a function that fills a tensor in place"
            check_function(f"init_'s {what}", fill, condition, fix=FIX)
    if weights is None and biases is None:
        raise invalid("init_", "be given what to fill weights or biases by", "neither", FIX)
    if lazy := [name for name, param in model.named_parameters() if is_lazy(param)]:
        fix = "Call it once on an example: model(x)."
        raise invalid("model", "be initialised", f"lazy {lazy}", fix)
    named = model.named_modules()
    if computed := [name or "itself" for name, module in named if is_parametrized(module)]:
        got, fix = f"parametrizations of {computed}", "Call init_ before the parametrization."
        raise invalid("init_'s model", "have weights of its own", got, fix)
    if transforms(model):
        fix = "Write inner.t_net(models.init_(model, ...))."
        raise invalid("init_'s model", "be a plain network", "a T-net", fix)
