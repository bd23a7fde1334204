import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import inner, models, outer
from metalearn.types import Batch, Episode

ESTIMATORS = [outer.Unrolled(), outer.Stepwise(), outer.Unrolled(order=1), outer.Implicit(1.0, outer.CG(2))]


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False), nn.Tanh(), nn.AdaptiveAvgPool2d(1)]
    return models.use_batch_statistics(nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))).double()


def episodes():
    torch.manual_seed(1)
    support, query = (Batch(torch.randn(3, n, 2, 6, 6).double(), torch.arange(3 * n).reshape(3, n) % 3) for n in (3, 6))
    return Episode(support, query)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: repr(estimator)[:22])
def test_meta_gradients_are_the_same(estimator, batching):
    gradients = []
    for model in (models.channels_last(network()), network()):
        options = {"num_steps": 2, "estimator": estimator, "batching": batching}
        learner = outer.MetaLearner(model, F.cross_entropy, inner.SGD(0.3), **options)
        learner(episodes()).backward()
        gradients.append([param.grad for param in learner.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


def test_layers_are_changed_in_place_and_named_as_before():
    model, before = network(), network()
    assert models.channels_last(models.channels_last(model)) is model
    assert list(model.state_dict()) == list(before.state_dict())
    assert repr(model) == repr(before)
    assert all(isinstance(new, type(old)) for new, old in zip(model.modules(), before.modules(), strict=True))


def test_images_have_their_channels_last_in_all_tasks():
    features = models.channels_last(nn.Sequential(nn.Conv2d(2, 4, 3), models.BatchNorm(4), nn.ReLU(), nn.MaxPool2d(2)))
    images = torch.func.vmap(features)(torch.randn(3, 5, 2, 8, 8))
    assert images.movedim(0, 1).flatten(1, 2).is_contiguous(memory_format=torch.channels_last)


def test_layers_of_other_kinds_are_left_alone():
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(Own(1, 2, 3), nn.Conv1d(1, 2, 3), nn.LazyConv2d(2, 3))
    kinds = [type(layer) for layer in model]
    assert [type(layer) for layer in models.channels_last(model)] == kinds


def test_copies_and_low_precision():
    model = copy.deepcopy(models.channels_last(network()).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(4, 2, 6, 6)).dtype == torch.bfloat16
    assert model.bfloat16()(torch.randn(4, 2, 6, 6).bfloat16()).dtype == torch.bfloat16


def test_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="must be an nn.Module"):
        models.channels_last("resnet")
