from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, evaluate, fit, models
from metalearn.data import (
    ClassImages,
    EpisodeSampler,
    MiniBatches,
    RandomFlip,
    Shard,
    Sinusoid,
    SupportAsQuery,
    TaskDistribution,
)
from metalearn.types import Batch, Episode

IMAGES = ClassImages(
    [
        torch.full((count, 4, 4), 10 * label, dtype=torch.uint8)
        for label, count in enumerate([3, 1, 6])
    ]
)


def test_labels_are_those_of_the_images_and_all_images_are_drawn():
    episode = MiniBatches(IMAGES, 50).sample(40, generator=torch.Generator().manual_seed(0))
    x, y, _ = episode.query
    assert x.shape == (40, 50, 1, 4, 4)
    assert torch.equal((255 * x[:, :, 0, 0, 0]).round().long(), 10 * y)
    share = torch.bincount(y.flatten()) / y.numel()
    torch.testing.assert_close(share, torch.tensor([0.3, 0.1, 0.6]), atol=0.03, rtol=0)
    assert episode.support.x is x


def test_a_generator_decides():
    batches = MiniBatches(IMAGES, 5, transform=RandomFlip())
    first, second = (
        batches.sample(2, generator=torch.Generator().manual_seed(3)).query for _ in range(2)
    )
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.y, second.y)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Numbered(TaskDistribution):
    """Tasks that say of each example its task and its place; odd places are padding."""

    padded: bool = False

    def draw(self, num_tasks, generator, device):
        def batch(places):
            task = torch.randint(10**6, (num_tasks, 1), generator=number.clone_state()).expand(
                -1, len(places)
            )
            place = places.expand(num_tasks, -1)
            weight = (place % 2 == 0).float() if self.padded else ()
            return Batch({"task": task, "place": place}, task + place, weight)

        number = generator
        return Episode(batch(torch.arange(3)), batch(torch.arange(3, 5)))


def test_examples_of_a_distribution_are_each_of_a_task_of_its_own():
    support, query = MiniBatches(Numbered(), 40).sample(3, generator=seeded())
    assert support is query
    assert query.weight == ()
    assert query.x["task"].shape == query.y.shape == (3, 40)
    assert torch.equal(query.x["task"] + query.x["place"], query.y)
    assert len(query.x["task"].unique()) == 120


def test_all_examples_of_both_sets_are_as_frequent():
    place = MiniBatches(Numbered(), 5000).sample(1, generator=seeded()).query.x["place"]
    share = torch.bincount(place.flatten(), minlength=5) / 5000
    torch.testing.assert_close(share, torch.full((5,), 0.2), atol=0.02, rtol=0)


def test_padding_is_not_drawn():
    place = MiniBatches(Numbered(padded=True), 5000).sample(1, generator=seeded()).query.x["place"]
    share = torch.bincount(place.flatten(), minlength=5) / 5000
    torch.testing.assert_close(share, torch.tensor([1, 0, 1, 0, 1]) / 3, atol=0.02, rtol=0)


def test_a_generator_decides_the_examples_of_a_distribution():
    batches = MiniBatches(Sinusoid(5, 5), 8)
    before = torch.get_rng_state()
    first, second, other = (batches.sample(2, generator=seeded(seed)).query for seed in (3, 3, 4))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.y, second.y)
    assert not torch.equal(first.x, other.x)
    assert torch.equal(torch.get_rng_state(), before)
    one, none = (
        next(batches.batches(2, generator=seeded(), num_workers=workers)) for workers in (1, 0)
    )
    assert torch.equal(one.query.y, none.query.y)


def test_pretraining_on_sines_fits_their_mean_and_finetuning_starts_from_it():
    """The joint data of sine waves of all phases have the mean amplitude times the mean sine: here
    2.5 sin(x) / pi."""
    tasks = Sinusoid(5, 50, phase=(-torch.pi / 2, torch.pi / 2), amplitude=(2.5, 2.5))
    torch.manual_seed(0)
    model = models.mlp(1, [40, 40], 1)
    learner = baselines.Pretraining(model, F.mse_loss)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    batches = MiniBatches(tasks, 256)
    fit(learner, batches, optimizer, 400, meta_batch_size=1, generator=seeded(), progress=False)
    x = torch.linspace(-4, 4, 50)[:, None]
    error = (model(x) - 2.5 * 2 / torch.pi * x.sin()).square().mean()
    assert error < 0.1
    finetuning = baselines.Finetuning(model[:-1], nn.Linear(40, 1), F.mse_loss, num_steps=25)
    loss = evaluate(finetuning.eval(), tasks, num_tasks=20, generator=seeded())["loss"]
    untrained = evaluate(finetuning, tasks, num_tasks=20, num_steps=0, generator=seeded())["loss"]
    assert loss.mean < untrained.mean


SAMPLER = EpisodeSampler(IMAGES.select(["0", "2"]), 2, 1, 1)


class Unlike(TaskDistribution):
    def draw(self, num_tasks, generator, device):
        return Episode(Batch(torch.zeros(num_tasks, 2, 1)), Batch(torch.zeros(num_tasks, 2, 3)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: MiniBatches(torch.zeros(3), 4),
            TypeError,
            "source must be a ClassImages or a task distribution",
        ),
        (lambda: MiniBatches(Sinusoid, 4), TypeError, r"Write Sinusoid\(\.\.\.\)"),
        (
            lambda: MiniBatches(SAMPLER, 4),
            ValueError,
            r"got N-way tasks\. Pass its images: MiniBatches\(sampler\.classes",
        ),
        (
            lambda: MiniBatches(SupportAsQuery(Shard(SAMPLER, 2, 0)), 4),
            ValueError,
            "got N-way tasks",
        ),
        (
            lambda: MiniBatches(Sinusoid(2, 2), 4, RandomFlip()),
            ValueError,
            "transform must be left out",
        ),
        (
            lambda: MiniBatches(Sinusoid(2, 2), 0),
            ValueError,
            "batch_size must be at least 1; got 0",
        ),
        (
            lambda: MiniBatches(Unlike(), 4).sample(1),
            ValueError,
            "tasks of MiniBatches must have support and query",
        ),
    ],
)
def test_sources_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
