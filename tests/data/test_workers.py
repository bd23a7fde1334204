"""Batches that worker processes draw."""

import itertools
import multiprocessing
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn._tree import tree_leaves
from metalearn.data import (
    ClassImages,
    EpisodeSampler,
    MiniBatches,
    Shard,
    Sinusoid,
    SupportAsQuery,
    TaskDistribution,
)
from metalearn.data._workers import _Batches

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def equal(left, right):
    return all(
        torch.equal(a, b)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(tree_leaves(one), tree_leaves(other), strict=True)
    )


def noisy(images):
    return images + torch.rand(()) + random.random() + np.random.rand()


@pytest.fixture(params=["sinusoid", "cached images"])
def tasks(request, tmp_path):
    if request.param == "sinusoid":
        return Sinusoid(3, 4)
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.random.default_rng(index).integers(256, size=(6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    images = ClassImages.from_folder(tmp_path / "images", 6, cache=tmp_path / "cache")
    return EpisodeSampler(images, n_way=2, k_shot=1, num_query=2, transform=noisy)


def test_any_number_of_workers_gives_the_same_batches(tasks):
    none, one, two = (
        list(tasks.batches(2, num_batches=5, generator=seeded(), num_workers=workers, device="cpu"))
        for workers in (0, 1, 2)
    )
    assert len(one) == 5
    assert equal(none, one)
    assert equal(one, two)
    assert not equal(one[:1], one[1:2])
    assert not equal(one, list(tasks.batches(2, num_batches=5, generator=seeded(1), num_workers=1)))


def test_a_batch_is_an_episode_like_any_other(tasks):
    (batch,) = tasks.batches(2, num_batches=1, num_workers=1)
    expected = tasks.sample(2)
    assert type(batch) is type(expected)
    assert batch.support.weight == ()
    assert [leaf.shape for leaf in tree_leaves(batch)] == [
        leaf.shape for leaf in tree_leaves(expected)
    ]


def test_the_generator_is_advanced_alike():
    after = []
    for workers in (0, 1, 2):
        generator = seeded()
        list(
            itertools.islice(Sinusoid(3, 4).batches(2, generator=generator, num_workers=workers), 3)
        )
        after.append(generator.get_state())
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])
    assert not torch.equal(after[0], seeded().get_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_leaves_the_global_ones_alone(tasks, workers):
    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = state()
    list(tasks.batches(2, num_batches=2, generator=seeded(), num_workers=workers))
    assert state() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_generator_the_global_seed_decides(workers):
    def draw(seed):
        torch.manual_seed(seed)
        return list(Sinusoid(3, 4).batches(2, num_batches=2, num_workers=workers))

    assert equal(draw(3), draw(3))
    assert not equal(draw(3), draw(4))


def test_workers_end_with_the_iterator():
    batches = Sinusoid(3, 4).batches(2, num_workers=2)
    assert multiprocessing.active_children() == []
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_no_batches_are_none():
    assert list(Sinusoid(3, 4).batches(2, num_batches=0, num_workers=1)) == []


class Broken(TaskDistribution):
    def draw(self, num_tasks, generator, device):
        raise ValueError("no tasks today")


def test_an_error_of_a_worker_arrives():
    with pytest.raises(ValueError, match="no tasks today"):
        next(Broken().batches(2, num_workers=1))


def test_a_worker_that_is_not_forked_gets_the_tasks(tasks):
    batches = _Batches(tasks, 2)
    assert equal([pickle.loads(pickle.dumps(batches))[7]], [batches[7]])


def test_numbers_that_are_refused():
    for value, error, message in (
        (-1, ValueError, "at least 0; got -1"),
        (True, TypeError, "an int; got True"),
    ):
        with pytest.raises(error, match=rf"num_workers must be {message}\. Pass num_workers=2\."):
            Sinusoid(3, 4).batches(2, num_workers=value)


@pytest.mark.parametrize(
    "tasks_of",
    [
        lambda images: EpisodeSampler(images, 2, 1, 1),
        lambda images: MiniBatches(images, 2),
        lambda images: SupportAsQuery(EpisodeSampler(images, 2, 1, 1)),
        lambda images: Shard(EpisodeSampler(images, 2, 1, 1), 2, 0),
    ],
)
def test_images_on_another_device_than_the_workers(tasks_of):
    images = ClassImages(torch.zeros(3, 4, 8, 8, dtype=torch.uint8))
    assert tasks_of(images).source_device == torch.device("cpu")
    with pytest.raises(
        ValueError,
        match=r"draw on the CPU; got tasks on meta for 2 workers\. Keep images on the CPU",
    ):
        tasks_of(images.to("meta")).batches(4, num_workers=2)
    assert Sinusoid(2, 2).source_device is None
