import pytest
import torch
import torch.nn as nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from metalearn.models._pooling import AdaptiveAvgPool2d, MaxPool2d

WINDOWS = [{"kernel_size": 2}, {"kernel_size": (3, 2), "stride": 1, "padding": 1, "ceil_mode": True}]


@pytest.mark.parametrize("options", WINDOWS)
class TestMaxPool2d:
    def test_derivatives(self, options):
        torch.manual_seed(0)
        images = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(MaxPool2d(**options)(images), nn.MaxPool2d(**options)(images))
        assert gradcheck(MaxPool2d(**options), (images,), fast_mode=True)
        assert gradgradcheck(MaxPool2d(**options), (images,), fast_mode=True)

    def test_tasks(self, options):
        torch.manual_seed(0)
        images = torch.randn(4, 2, 3, 4, 4).relu()  # with ties

        def first(pool):
            return grad(lambda images: pool(images).pow(3).sum())

        def second(pool):
            return grad(lambda images: first(pool)(images).pow(2).sum())

        for derivative in (lambda pool: pool, first, second):
            mine, reference = (derivative(kind(**options)) for kind in (MaxPool2d, nn.MaxPool2d))
            torch.testing.assert_close(vmap(mine)(images), vmap(reference)(images))

    def test_layout_is_kept(self, options):
        images = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        assert MaxPool2d(**options)(images).is_contiguous(memory_format=torch.channels_last)


def test_indices_and_single_images_are_pytorchs():
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(MaxPool2d(2, return_indices=True)(images), nn.MaxPool2d(2, return_indices=True)(images))
    torch.testing.assert_close(MaxPool2d(2)(images[0]), nn.MaxPool2d(2)(images[0]))


@pytest.mark.parametrize("size", [1, (1, 1), 2, (None, 1)])
def test_average(size):
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(AdaptiveAvgPool2d(size)(images), nn.AdaptiveAvgPool2d(size)(images))
