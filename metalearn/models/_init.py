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
    from metalearn.inner._t_net import transforms  # which imports this package

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
