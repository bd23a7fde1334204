import pytest
import torch
import torch.nn as nn

from metalearn import models


def test_batch_statistics_replace_running_ones():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.InstanceNorm2d(2, track_running_stats=True)
    )
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


@pytest.mark.parametrize(
    "lazy", [nn.LazyBatchNorm2d(), nn.LazyInstanceNorm1d(track_running_stats=True)]
)
def test_lazy_layers_are_to_be_initialised_first(lazy):
    with pytest.raises(
        ValueError,
        match=r"model must be initialised; got lazy layers \['1'\]. Call it once on an exa",
    ):
        models.use_batch_statistics(nn.Sequential(nn.Conv2d(1, 1, 1), lazy))


@pytest.mark.parametrize(
    "function", [models.use_batch_statistics, models.batch_statistics, models.running_statistics]
)
@pytest.mark.parametrize(
    ("model", "fix"), [("conv4", "Pass the module itself"), (nn.BatchNorm2d, "Write BatchNorm2d")]
)
def test_what_is_no_module_is_refused(function, model, fix):
    with pytest.raises(TypeError, match=f"model must be an nn.Module; got .*{fix}"):
        function(model)


def test_a_refused_layer_leaves_the_others_as_they_are():
    instance = nn.InstanceNorm1d(3, track_running_stats=True)
    model = nn.Sequential(instance, nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="layer '1' must have statistics to be frozen"):
        models.use_batch_statistics(model, "frozen")
    assert instance.running_mean is not None
