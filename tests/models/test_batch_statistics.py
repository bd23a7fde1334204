import torch
import torch.nn as nn

from metalearn import models


def test_batch_statistics_replace_running_ones():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.InstanceNorm2d(2, track_running_stats=True))
    assert models.running_statistics(model) == ["1", "2"]
    assert models.batch_statistics(model) == "transductive"
    assert models.batch_statistics(model.eval()) == "frozen"
    assert models.use_batch_statistics(model) is model
    assert models.running_statistics(model) == []
    assert models.batch_statistics(model) == "transductive"
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(model(x), model.train()(x))
    assert not any("running" in name for name in model.state_dict())


def test_layers_without_a_batch_do_not_use_its_statistics():
    assert models.batch_statistics(nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3))) == "none"
