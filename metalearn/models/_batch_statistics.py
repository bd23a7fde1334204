"""Where batch normalisation takes its statistics from, and how to change that."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase, _NormBase

from metalearn._checks import check_choice, check_count, check_kind, invalid, mistyped
from metalearn.models._batch_norm import BatchNorm, FrozenNorm, PerStepNorm, SupportNorm, moments

KINDS: dict[str, type[BatchNorm]] = {
    kind.statistics: kind for kind in (BatchNorm, SupportNorm, PerStepNorm, FrozenNorm)
}
BATCH_STATISTICS = tuple(KINDS)
PLAIN = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}


def _norms(model: nn.Module) -> list[tuple[str, _NormBase]]:
    check_kind("model", model, nn.Module, "an nn.Module", "the module itself: models.conv4(1, 5)")
    # Instance normalisation is a _NormBase too; it treats each example separately, so only its
    # buffers matter.
    return [(name, norm) for name, norm in model.named_modules() if isinstance(norm, _NormBase)]


def running_statistics(model: nn.Module) -> list[str]:
    """Return the names of layers that keep PyTorch's running statistics."""
    return [name for name, norm in _norms(model) if norm.running_mean is not None]


def batch_statistics(model: nn.Module) -> str:
    """Return where batch normalisation takes the statistics of query examples from.

    Returns:
        "transductive" (the query batch), "support", "per_step" (running statistics), "frozen" or
        "none"; several are separated by commas.

    >>> norm = nn.BatchNorm1d(3, track_running_stats=False)
    >>> batch_statistics(nn.Sequential(nn.Linear(2, 3), norm))
    'transductive'
    """
    sources = {_source(norm) for _, norm in _norms(model) if isinstance(norm, _BatchNorm)}
    return ", ".join(sorted(sources)) or "none"


def _source(norm: _BatchNorm) -> str:
    if isinstance(norm, PerStepNorm):
        return "transductive" if norm.training else norm.statistics
    if isinstance(norm, BatchNorm):
        return norm.statistics
    return "transductive" if norm.training or norm.running_mean is None else "frozen"


def use_batch_statistics(
    model: nn.Module, source: str = "transductive", *, num_steps: int | None = None
) -> nn.Module:
    """Make every batch normalisation layer of `model` take its statistics from one source.

    PyTorch updates running statistics in place at every forward pass, which is undefined for many
    tasks at once. The layers are replaced in place by ones with the same affine parameters, and the
    model is returned.

    Args:
        model: Any module; if it is itself a normalisation layer, a new one is returned.
        source: What normalises a query example. "transductive": its query batch, as in the MAML
            papers, which lets test examples help one another. "support": the support set.
            "per_step": the query batch in training, running statistics in evaluation, with separate
            affine parameters for every inner step (MAML++). "frozen": the layers' current
            statistics, for pretrained models; new layers have means of 0 and variances of 1, and
            normalise nothing until `load_state_dict` brings others.
        num_steps: Number of inner steps, at least 1; only needed for "per_step".

    Raises:
        TypeError: If the model is not a module, `num_steps` is missing or not an int, or a layer is
            of an unknown kind.
        ValueError: If the source is unknown, a layer is lazy, or "frozen" and a layer has no
            statistics.

    References:
        Antoniou et al., "How to train your MAML", ICLR 2019 (per_step).
        Nichol et al., "On first-order meta-learning algorithms", 2018 (transductive and not).

    >>> use_batch_statistics(nn.BatchNorm2d(3)).running_mean is None
    True
    """
    check_choice("source", source, BATCH_STATISTICS)
    if source == "per_step" or num_steps is not None:
        fix = "Write use_batch_statistics(model, 'per_step', num_steps=5), say."
        check_count("num_steps", num_steps, fix=fix)
    norms = _norms(model)
    if lazy := [name for name, norm in norms if isinstance(norm, _LazyNormBase)]:
        fix = "Call it once on an example: model(x)."
        raise invalid("model", "be initialised", f"lazy layers {lazy}", fix)
    batch_norms = [(name, norm) for name, norm in norms if isinstance(norm, _BatchNorm)]
    layers = {norm: _replacement(name, norm, source, num_steps or 0) for name, norm in batch_norms}
    for _, norm in norms:
        if norm not in layers:
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return _replace(model, layers)


def _replace(model: nn.Module, layers: Mapping[Any, nn.Module]) -> nn.Module:
    """Replace layers wherever they occur, and return the model, or its replacement."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if name and module in layers:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, layers[module])
    return layers.get(model, model)


def _replacement(name: str, norm: _BatchNorm, source: str, num_steps: int) -> nn.Module:
    what = f"layer {name!r}"
    if type(norm) not in {*PLAIN, *KINDS.values()}:
        fix = "Put models.BatchNorm in its place."
        raise mistyped(what, "be a batch normalisation of PyTorch", type(norm).__name__, fix)
    if isinstance(norm, PerStepNorm):
        condition, fix = "have one row of affine parameters", "Build the model anew."
        raise invalid(what, condition, "one for every step", fix)
    if isinstance(norm, FrozenNorm) and source == "frozen":
        return norm
    new: BatchNorm
    if source == "per_step":
        new = PerStepNorm(norm.num_features, num_steps, norm.eps, norm.affine, norm.momentum or 0.1)
    else:
        new = KINDS[source](norm.num_features, norm.eps, norm.affine)
    for part in ("weight", "bias") if norm.affine else ():
        own = getattr(norm, part)
        if source == "per_step":
            rows = own.detach().repeat(num_steps + 1, 1)
            own = nn.Parameter(rows, requires_grad=own.requires_grad)
        setattr(new, part, own)
    if isinstance(new, FrozenNorm):
        if norm.running_mean is None or norm.running_var is None:
            fix = "Choose 'transductive' or 'support', or load a pretrained model."
            raise invalid(what, "have statistics to be frozen", "none", fix)
        new.mean, new.var = norm.running_mean.clone(), norm.running_var.clone()
    tensors = norm.weight, norm.running_mean, torch.empty(0)
    like = next(tensor for tensor in tensors if tensor is not None)
    return new.train(norm.training).to(like)


def freeze_at_support(model: nn.Module, call: Callable[[], Any]) -> nn.Module:
    """Freeze every layer that needs a support set at the statistics of one, and return the model.

    Args:
        model: A module; it is changed in place.
        call: Calls it on the support set.
    """
    named = model.named_modules()
    norms = {norm: name for name, norm in named if isinstance(norm, SupportNorm)}
    if not norms:  # the support set need not be an input of the model
        return model

    def remember(norm: SupportNorm, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        norm.running_mean, norm.running_var = moments(x, norm.weights(x))

    hooks = [norm.register_forward_pre_hook(remember) for norm in norms]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    layers = {norm: _replacement(name, norm, "frozen", 0) for norm, name in norms.items()}
    return _replace(model, layers)
