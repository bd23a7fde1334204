import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, data, evaluate, fit, functional, inner, models
from metalearn.baselines import Transfer

IMAGES = data.ClassImages(torch.randint(256, (6, 12, 8, 8), generator=torch.manual_seed(0)).byte())


def easy_classes(count=8):
    """Classes that a linear model can tell apart: each has a bright row or column of its own."""
    pixels = torch.randint(60, (count, 20, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for label in range(count):
        pixels[label, :, label] += 120
    return data.ClassImages(pixels)


def accuracy(learner, classes, **options):
    tasks = data.EpisodeSampler(classes, n_way=3, k_shot=4, num_query=5)
    metrics = {"accuracy": functional.accuracy}
    generator = torch.Generator().manual_seed(1)
    return evaluate(learner, tasks, num_tasks=8, metrics=metrics, generator=generator, **options)["accuracy"].mean


def test_training_from_scratch_learns_a_task_and_has_nothing_else_to_learn():
    learner = baselines.TrainFromScratch(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    assert list(learner.parameters()) == []
    assert accuracy(learner, easy_classes(), num_steps=0) < 0.6 < 0.9 < accuracy(learner, easy_classes())


@pytest.mark.parametrize("centroids", [False, True])
def test_a_pretrained_body_is_frozen_and_its_head_anew(centroids):
    classes = easy_classes()
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    head = baselines.CosineHead(16, 8) if centroids else nn.Linear(16, 8)
    pretraining = baselines.Pretraining(nn.Sequential(body, head))
    optimizer = torch.optim.Adam(pretraining.parameters(), lr=1e-2)
    history = fit(pretraining, data.MiniBatches(classes, 16), optimizer, 100, meta_batch_size=1, progress=False)
    assert history.loss[-10:].mean() < 0.7 * history.loss[:10].mean()
    before = copy.deepcopy(body.state_dict())
    rule = inner.Adam(0.03)
    finetuning = (
        baselines.CentroidFinetuning(body, 16, 3, rule=rule),
        baselines.Finetuning(body, nn.Linear(16, 3), rule=rule),
    )
    learner, names = finetuning[not centroids], (["head.weight", "head.bias"], ["head.centroids"])[centroids]
    assert list(learner.meta.init) == names
    assert not any(param.requires_grad for param in learner.parameters())
    assert accuracy(learner, classes) > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    assert all(param.requires_grad for param in body.parameters())


def test_baselines_run_on_images_with_batch_norm():
    model = models.conv4(1, 6, num_filters=4, num_layers=2, batch_statistics="support")
    few = Transfer(batch_size=2, select_every=1)
    learner = baselines.Finetuning(model.features, nn.Linear(4, 3), num_steps=2, estimator=few)
    tasks = data.EpisodeSampler(IMAGES, 3, 2, 3)
    assert evaluate(learner, tasks, num_tasks=3).batch_statistics == "support"


def test_logits_are_cosines_whatever_the_lengths():
    head, features = baselines.CosineHead(4, 3, scale=5.0), torch.randn(6, 4)
    expected = 5 * F.cosine_similarity(features[:, None], head.centroids, dim=-1)
    with torch.no_grad():
        head.centroids.mul_(torch.tensor([[0.1], [1.0], [10.0]]))
    torch.testing.assert_close(head(7 * features), expected)
