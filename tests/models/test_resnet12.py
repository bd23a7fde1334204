import pytest
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer


def test_shapes_and_number_of_parameters():
    model = models.resnet12(3, 5)
    expected, before = 640 * 5 + 5, 3
    for width in (64, 160, 320, 640):
        expected += 9 * width * (before + 2 * width) + before * width + 4 * 2 * width
        before = width
    assert sum(param.numel() for param in model.parameters()) == expected
    assert expected - 3205 == 12_424_320  # the size that its users quote
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert model.features(torch.zeros(2, 3, 84, 84)).shape == (2, 640)


@pytest.mark.parametrize("source", ["transductive", "support"])
def test_it_is_meta_learned(source):
    images = data.ClassImages(
        torch.randint(256, (6, 4, 8, 8), generator=torch.manual_seed(0)).byte()
    )
    model = models.resnet12(1, 3, widths=(2, 3), batch_statistics=source)
    learner = outer.MAML(model, F.cross_entropy, inner.SGD(0.1), num_steps=2)
    learner(data.EpisodeSampler(images, 3, 1, 2).sample(2)).backward()
    assert all(param.grad.isfinite().all() for param in learner.parameters())
    assert models.batch_statistics(model) == source


BAD = [
    (lambda: models.resnet12(3, 5, widths=64), TypeError, "widths must be a list"),
    (lambda: models.resnet12(3, 0), ValueError, "must be at least 1"),
    (
        lambda: models.resnet12(3, 5, batch_statistics="suport"),
        ValueError,
        "Did you mean 'support'?",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
