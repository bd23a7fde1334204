"""The smallest model of every family of torchvision's classification models is a function of its
parameters."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.nn.attention import SDPBackend, sdpa_kernel

from metalearn import models, testing
from metalearn.types import Batch

SMALLEST = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
    "vit_b_16": 224,
    "wide_resnet50_2": 32,
}
"""Models and the size of an image that they take."""
OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
FIRST_ORDER = ("mobilenet_v3_small",)
"""PyTorch has no second derivative of hardsigmoid."""
PLAIN_KERNELS = ("maxvit_t", "vit_b_16")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_a_model_of_torchvision_passes(name, size):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=5, **OPTIONS.get(name, {}))
    model = models.use_batch_statistics(model, "transductive").eval()
    batch = Batch(torch.rand(2, 3, size, size), torch.tensor([1, 3]))
    with sdpa_kernel(SDPBackend.MATH) if name in PLAIN_KERNELS else nullcontext():
        found = testing.check_model(
            model, batch, F.cross_entropy, order=1 if name in FIRST_ORDER else 2
        )
    assert not found.recomputes
    assert found.error <= found.tolerance
