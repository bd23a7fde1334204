"""Models that keep images in the layout which is fastest for many tasks at once."""

from typing import TypeVar

import torch.nn as nn

from metalearn._checks import check_kind
from metalearn.models._conv2d import Conv2d
from metalearn.models._pooling import AdaptiveAvgPool2d, MaxPool2d

M = TypeVar("M", bound=nn.Module)
LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: Conv2d,
    nn.MaxPool2d: MaxPool2d,
    nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
}


def channels_last(model: M) -> M:
    """Let a model's convolutions and poolings keep images with channels last in memory, and return the model.

    `conv4` and `resnet12` are so already. The results are the same, and so are parameters and their names. On a CPU, in
    eager mode and full precision, second-order meta-gradients take half to two thirds of the time; elsewhere the layers
    remain PyTorch's own. Batch normalisation by `use_batch_statistics` is fast in either layout.

    Args:
        model: Any module; its layers are changed in place. Its code must flatten images by `flatten` or `reshape`,
            since `view` raises for channels that come last.

    Raises:
        TypeError: If the model is no module.

    >>> import torch
    >>> channels_last(nn.Conv2d(3, 8, 3))(torch.zeros(1, 3, 6, 6)).is_contiguous(memory_format=torch.channels_last)
    True
    """
    check_kind("model", model, nn.Module, "an nn.Module", "the module itself: channels_last(resnet18())")
    for module in model.modules():
        module.__class__ = LAYERS.get(type(module), type(module))  # they differ in methods alone
    return model
