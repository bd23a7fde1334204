"""The protocol of task distributions, over all of them."""

import itertools
import re

import pytest
import torch

from metalearn._tree import tree_leaves
from metalearn.data import (
    ClassImages,
    EpisodeSampler,
    LinearClassification,
    Polynomial,
    Sinusoid,
    TaskDistribution,
)
from metalearn.types import Batch, Episode

DISTRIBUTIONS = [
    Sinusoid(3, 4, noise_std=0.1),
    Polynomial(3, 4, order=2, noise_std=0.1),
    LinearClassification(3, 4, dim=5),
    EpisodeSampler(
        ClassImages([torch.randint(256, (n, 6, 6), dtype=torch.uint8) for n in (7, 9, 8)]), 2, 3, 4
    ),
]


@pytest.fixture(params=DISTRIBUTIONS, ids=lambda tasks: type(tasks).__name__)
def tasks(request):
    return request.param


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def equal(left, right):
    return all(map(torch.equal, tree_leaves(left), tree_leaves(right)))


def test_a_batch_has_a_leading_task_axis(tasks):
    episodes = tasks.sample(5, generator=seeded())
    assert all(len(leaf) == 5 for leaf in tree_leaves(episodes))
    assert episodes.support.weight == ()


def test_the_same_seed_gives_the_same_tasks(tasks):
    assert equal(tasks.sample(2, generator=seeded(1)), tasks.sample(2, generator=seeded(1)))
    assert not equal(tasks.sample(2, generator=seeded(1)), tasks.sample(2, generator=seeded(2)))


def test_tasks_of_a_batch_differ(tasks):
    x = tasks.sample(2, generator=seeded()).support.x
    assert not torch.equal(x[0], x[1])


def test_a_generator_leaves_the_global_one_alone(tasks):
    before = torch.get_rng_state()
    tasks.sample(2, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_seed_does_not_matter_to_a_generator(tasks):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = tasks.sample(2, generator=seeded())
        torch.manual_seed(4)
        assert equal(tasks.sample(2, generator=seeded()), first)


def test_without_a_generator_the_global_seed_decides(tasks):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = tasks.sample(2)
        torch.manual_seed(3)
        assert equal(tasks.sample(2), first)
        assert not equal(tasks.sample(2), first)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_device_does_not_change_the_tasks(tasks, device):
    assert equal(
        tasks.sample(2, generator=seeded(), device=device),
        tasks.sample(2, generator=seeded(), device="cpu"),
    )


def test_a_cpu_generator_serves_another_device(tasks):
    x = tasks.sample(2, generator=seeded(), device="meta").query.x
    assert x.device.type == "meta"
    assert x.shape == tasks.sample(2).query.x.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cpu_generator_gives_the_same_tasks_on_a_gpu(tasks):
    on_gpu = tasks.sample(2, generator=seeded(), device="cuda")
    assert all(leaf.is_cuda for leaf in tree_leaves(on_gpu))
    torch.testing.assert_close(on_gpu.to("cpu"), tasks.sample(2, generator=seeded()))


def test_numbers_have_the_default_dtype(tasks):
    torch.set_default_dtype(torch.float64)
    try:
        assert tasks.sample(1).support.x.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_batches_end_after_their_number(tasks):
    batches = list(tasks.batches(2, num_batches=3, generator=seeded()))
    assert len(batches) == 3
    assert not equal(*batches[:2])
    assert list(tasks.batches(2, num_batches=0)) == []


def test_batches_never_end_by_default(tasks):
    assert len(list(itertools.islice(tasks.batches(1), 50))) == 50


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda tasks: tasks.sample(0),
            ValueError,
            r"num_tasks must be at least 1; got 0\. Pass sample",
        ),
        (lambda tasks: tasks.sample(2.0), TypeError, r"num_tasks must be an int; got 2\.0"),
        (
            lambda tasks: tasks.sample(1, generator=7),
            TypeError,
            r"generator must be a torch\.Generator",
        ),
        (lambda tasks: tasks.batches(0), ValueError, r"meta_batch_size must be at least 1; got 0"),
        (
            lambda tasks: tasks.batches(1, num_batches=-1),
            ValueError,
            r"num_batches must be at least 0",
        ),
        (
            lambda tasks: tasks.batches(1, num_batches="all"),
            TypeError,
            r"num_batches must be an int",
        ),
        (
            lambda tasks: tasks.batches(1, generator=7),
            TypeError,
            r"generator must be a torch\.Generator",
        ),
    ],
)
def test_errors_are_raised_at_the_call(tasks, call, error, message):
    with pytest.raises(error, match=message):
        call(tasks)


def test_a_distribution_without_draw_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        TaskDistribution()


class Wrong(TaskDistribution):
    def __init__(self, drawn):
        self.drawn = drawn

    def draw(self, num_tasks, generator, device):
        return self.drawn


PAIR = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_a_draw_returns_as_many_tasks_as_asked_for(num_tasks):
    message = f"draw of Wrong must return tensors of {num_tasks} tasks; got [(1, 2, 1), (1, 2, 1)"
    with pytest.raises(ValueError, match=re.escape(message)):
        Wrong(Episode(Batch(*PAIR), Batch(*PAIR))).sample(num_tasks)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(
    ("drawn", "got"),
    [
        ((PAIR, PAIR), "tuple"),
        (Episode(PAIR, Batch(*PAIR)), "an Episode of tuple and Batch"),
        (None, "NoneType"),
    ],
)
def test_a_draw_returns_episodes(drawn, got, device):
    message = (
        f"draw of Wrong must return an Episode of two Batches; got {got}. Write Episode(Batch(x, "
        "y), Batch(x, y))."
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        Wrong(drawn).sample(1, device=device)
    with pytest.raises(TypeError, match=re.escape(message)):
        next(Wrong(drawn).batches(1, device=device))
