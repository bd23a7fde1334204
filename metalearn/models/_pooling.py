"""Pooling that keeps the layout of convolutions."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd import Function
from torch.nn.modules.utils import _pair

from metalearn.models._folding import fold, folds, unfold


class MaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d`, which takes tasks as groups of channels, as `Conv2d` leaves them.

    >>> MaxPool2d(2)(torch.arange(16.0).reshape(1, 1, 4, 4)).flatten()
    tensor([ 5.,  7., 13., 15.])
    """

    def forward(self, images: Tensor) -> Any:
        """Return the greatest values of windows of images `[n, C, H, W]`."""
        if self.return_indices or images.dim() != 4 or not folds(images):
            return super().forward(images)
        sizes = (_pair(size) for size in (self.kernel_size, self.stride, self.padding, self.dilation))
        windows = (*sizes, self.ceil_mode)
        return _MaxPool.apply(images, windows)[0]


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`, which in this layout is slow under `vmap` where it takes the mean of an image."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the means of equal parts of images `[n, C, H, W]`."""
        whole = self.output_size in (1, (1, 1), [1, 1])
        return images.mean((-2, -1), keepdim=True) if whole else super().forward(images)


class _MaxPool(Function):
    @staticmethod
    def forward(x: Tensor, windows: tuple[Any, ...]) -> Any:
        return torch.ops.aten.max_pool2d_with_indices(x, *windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        (x, ctx.windows), (_, indices) = inputs, output
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(x, indices)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, _: Any) -> tuple[Tensor, None]:
        x, indices = ctx.saved_tensors
        return torch.ops.aten.max_pool2d_with_indices_backward(y_bar, x, *ctx.windows, indices), None

    @staticmethod
    def vmap(info: Any, axes: Any, x: Tensor, windows: tuple[Any, ...]) -> Any:
        (x,) = fold((x,), axes[:1], info.batch_size, (1,))
        return unfold(_MaxPool.apply(x, windows), info.batch_size, (1, 1))
