"""Batch normalisation by the statistics of the batch, which is what per-task models can use."""

import torch.nn as nn
from torch.nn.modules.batchnorm import _NormBase


def _norms(model: nn.Module) -> list[tuple[str, _NormBase]]:
    # Instance normalisation is a _NormBase too: it normalises each example by itself, so only its buffers matter.
    return [(name, module) for name, module in model.named_modules() if isinstance(module, _NormBase)]


def running_statistics(model: nn.Module) -> list[str]:
    """Return the names of the normalisation layers that keep running statistics."""
    return [name for name, norm in _norms(model) if norm.running_mean is not None]


def uses_batch_statistics(model: nn.Module) -> bool:
    """Return whether an example's output depends on the other examples of its batch through batch normalisation."""
    batch_norms = [norm for _, norm in _norms(model) if not isinstance(norm, nn.modules.instancenorm._InstanceNorm)]
    return any(norm.training or norm.running_mean is None for norm in batch_norms)


def use_batch_statistics(model: nn.Module) -> nn.Module:
    """Make every normalisation layer of `model` normalise by its batch, in training and evaluation, and return it.

    Running statistics are updated in place by every forward pass, which is undefined for many tasks at once. Without
    them a query set is normalised by its own statistics (the transductive habit of the MAML papers).

    >>> use_batch_statistics(nn.BatchNorm2d(3)).running_mean is None
    True
    """
    for _, norm in _norms(model):
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return model
