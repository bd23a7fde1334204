import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metalearn.data import ClassImages, EpisodeSampler


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(num_images):
    """Images that say who they are: row 0 holds the class, row 1 the number of the image within
    it."""
    images = [torch.zeros(n, 2, 5, dtype=torch.uint8) for n in num_images]
    for label, image in enumerate(images):
        image[:, 0], image[:, 1] = label, torch.arange(len(image), dtype=torch.uint8).unsqueeze(-1)
    return ClassImages(images)


def identities(x):
    """The classes and the numbers `[tasks, n]` of `numbered` images."""
    pixels = (255 * x).round().long()
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0, 0, 0], pixels[..., 0, 1, 0]


def test_shapes_and_dtypes():
    classes = ClassImages(torch.zeros(6, 9, 8, 7, 3, dtype=torch.uint8))
    support, query = EpisodeSampler(classes, n_way=4, k_shot=2, num_query=3).sample(
        5, generator=generator()
    )
    assert support.x.shape == (5, 8, 3, 8, 7)
    assert query.x.shape == (5, 12, 3, 8, 7)
    assert support.x.dtype == torch.float32
    assert support.y.shape == (5, 8)
    assert query.y.shape == (5, 12)
    assert query.y.dtype == torch.int64


def test_bytes_become_numbers_between_0_and_1():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 2, 16, 8)
    support, query = EpisodeSampler(ClassImages(pixels), 1, 1, 1).sample(1, generator=generator())
    values = torch.cat([support.x, query.x]).flatten().sort().values
    torch.testing.assert_close(values, torch.arange(256) / 255)


def test_examples_are_class_after_class():
    support, query = EpisodeSampler(numbered([9] * 6), 3, k_shot=2, num_query=4).sample(
        7, generator=generator()
    )
    assert support.y.tolist() == [[0, 0, 1, 1, 2, 2]] * 7
    assert query.y.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 7
    of_support, _ = identities(support.x)
    of_query, _ = identities(query.x)
    assert torch.equal(of_support[:, ::2], of_support[:, 1::2])
    assert torch.equal(of_support[:, ::2].repeat_interleave(4, dim=1), of_query)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.lists(st.integers(2, 9), min_size=1, max_size=6), st.integers(0, 2**30))
def test_nothing_is_drawn_twice_and_no_padding_ever(data, num_images, seed):
    n_way = data.draw(st.integers(1, len(num_images)))
    k_shot = data.draw(st.integers(1, min(num_images) - 1))
    num_query = data.draw(st.integers(1, min(num_images) - k_shot))
    sampler = EpisodeSampler(numbered(num_images), n_way, k_shot, num_query)
    support, query = sampler.sample(20, generator=generator(seed))
    classes, numbers = identities(torch.cat([support.x, query.x], dim=1))
    assert (numbers < torch.tensor(num_images)[classes]).all()
    for task_classes, task_numbers in zip(classes.tolist(), numbers.tolist(), strict=True):
        assert len(set(task_classes)) == n_way
        assert len(set(zip(task_classes, task_numbers, strict=True))) == n_way * (
            k_shot + num_query
        )


def assert_uniform(values, num_values):
    """Chi-square test of counts, at five standard deviations of the statistic."""
    counts = torch.bincount(values.flatten(), minlength=num_values).double()
    assert len(counts) == num_values
    expected = counts.mean()
    freedom = num_values - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


def test_every_class_and_image_is_equally_likely():
    sampler = EpisodeSampler(numbered([7] * 5), n_way=2, k_shot=1, num_query=2)
    support, query = sampler.sample(5_000, generator=generator())
    for batch in (support, query):
        classes, numbers = identities(batch.x)
        assert_uniform(classes, 5)
        assert_uniform(classes * 7 + numbers, 35)


def test_images_of_a_small_class_are_equally_likely_too():
    sampler = EpisodeSampler(numbered([3, 200]), n_way=2, k_shot=1, num_query=1)
    classes, numbers = identities(sampler.sample(3_000, generator=generator()).support.x)
    assert_uniform(numbers[classes == 0], 3)
    assert_uniform(numbers[classes == 1], 200)


def test_labels_are_in_random_order():
    sampler = EpisodeSampler(numbered([2] * 3), n_way=3, k_shot=1, num_query=1)
    classes, _ = identities(sampler.sample(6_000, generator=generator()).support.x)
    orders = classes @ torch.tensor([9, 3, 1])
    assert_uniform(orders.unique(return_inverse=True)[1], 6)


def test_pairs_of_classes_are_equally_likely():
    sampler = EpisodeSampler(numbered([2] * 5), n_way=2, k_shot=1, num_query=1)
    classes, _ = identities(sampler.sample(8_000, generator=generator()).support.x)
    pairs = (classes @ torch.tensor([5, 1])).unique(return_inverse=True)[1]
    assert_uniform(pairs, 5 * 4)


def test_the_default_dtype_does_not_change_what_is_drawn():
    # In half precision, ties between the random keys would favour some classes.
    sampler = EpisodeSampler(numbered([9] * 50), 5, 1, 2)
    expected = sampler.sample(4, generator=generator()).query.x
    torch.set_default_dtype(torch.bfloat16)
    try:
        x = sampler.sample(4, generator=generator()).query.x
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(x, expected.bfloat16())


def test_images_stay_where_they_are():
    sampler = EpisodeSampler(numbered([4] * 3).to("meta"), 2, 1, 1)
    assert sampler.sample(2).support.x.device.type == "meta"


def test_transform_gets_all_images_of_the_tasks():
    seen = []

    def halve(images):
        seen.append(images)
        return images[..., ::2] / 2

    sampler = EpisodeSampler(numbered([4] * 3), 2, 1, 2, transform=halve)
    support, query = sampler.sample(5, generator=generator())
    plain = EpisodeSampler(numbered([4] * 3), 2, 1, 2).sample(5, generator=generator())
    assert [tuple(images.shape) for images in seen] == [(5, 6, 1, 2, 5)]
    assert torch.equal(support.x, plain.support.x[..., ::2] / 2)
    assert torch.equal(query.x, plain.query.x[..., ::2] / 2)


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (
            lambda images: images.numpy(),
            TypeError,
            "transform must return a tensor; got <class 'numpy",
        ),
        (
            lambda images: images.flatten(0, 1),
            ValueError,
            r"transform must keep the first two axes \(5, 4\)",
        ),
    ],
)
def test_transforms_that_are_refused(transform, error, message):
    with pytest.raises(error, match=message):
        EpisodeSampler(numbered([4] * 3), 2, 1, 1, transform).sample(5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"classes": torch.zeros(3)},
            TypeError,
            r"classes must be a ClassImages; .*ClassImages\(images\)",
        ),
        (
            {"n_way": 0},
            ValueError,
            r"n_way must be at least 1; got 0\. Pass EpisodeSampler\(classes, n_way=5",
        ),
        ({"k_shot": 0}, ValueError, "k_shot must be at least 1; got 0"),
        ({"num_query": 0}, ValueError, "num_query must be at least 1; got 0"),
        ({"num_query": 1.0}, TypeError, r"num_query must be an int; got 1\.0"),
        ({"k_shot": True}, TypeError, "k_shot must be an int; got True"),
        ({"n_way": "5"}, TypeError, "n_way must be an int; got '5'"),
        ({"transform": "normalise"}, TypeError, "transform must be a function of images, or None"),
        (
            {"n_way": 5},
            ValueError,
            r"n_way must be at most 3, the number of classes; got 5\. "
            r"Pass EpisodeSampler\(classes, n_way=3, k_shot=1, num_query=2\)\.",
        ),
        (
            {"k_shot": 5, "num_query": 4},
            ValueError,
            r"k_shot \+ num_query must be at most 6, the number of images of class '1'; "
            r"got 5 \+ 4 = 9\. "
            r"Pass EpisodeSampler\(classes, n_way=2, k_shot=3, num_query=1\)\.",
        ),
        (
            {"classes": numbered([3, 1])},
            ValueError,
            (
                r"at most 1, the number of images of class '1'; got 1 \+ 2 = 3\. Pass "
                r"classes\.select\(names\)"
            ),
        ),
    ],
)
def test_errors_are_raised_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        EpisodeSampler(
            **{"classes": numbered([9, 6, 4]), "n_way": 2, "k_shot": 1, "num_query": 2} | arguments
        )


@pytest.mark.skipif(
    "METALEARN_DATA" not in os.environ, reason="needs METALEARN_DATA, a folder of archives"
)
def test_real_episodes_can_be_told_apart():
    path = Path(os.environ["METALEARN_DATA"]) / "omniglot.npz"
    if not path.exists():
        pytest.skip("no omniglot.npz")
    sampler = EpisodeSampler(ClassImages.from_npz(path, "test"), n_way=5, k_shot=5, num_query=5)
    support, query = sampler.sample(50, generator=generator())
    centroids = support.x.flatten(2).unflatten(1, (5, 5)).mean(dim=2)
    nearest = torch.cdist(query.x.flatten(2), centroids).argmin(dim=-1)
    assert (nearest == query.y).float().mean() > 0.6


class TestRanges:
    """Tasks of different sizes, padded to the largest."""

    sampler = EpisodeSampler(numbered([9] * 8), n_way=(2, 5), k_shot=(1, 3), num_query=4)

    def test_weights_are_those_of_a_smaller_task(self):
        support, query = self.sampler.sample(200, generator=generator())
        assert support.x.shape[:2] == support.y.shape == support.weight.shape == (200, 15)
        shots = support.weight.unflatten(1, (5, 3)).sum(2)
        ways = (shots > 0).sum(1)
        assert set(ways.tolist()) == {2, 3, 4, 5}
        assert set(shots.max(1).values.tolist()) == {1, 2, 3}
        for task in range(200):
            # the first classes, all with as many shots
            assert (shots[task, : ways[task]] == shots[task].max()).all()
            assert not shots[task, ways[task] :].any()
        assert torch.equal(
            query.weight.unflatten(1, (5, 4)), (shots > 0)[:, :, None].expand(-1, -1, 4).float()
        )

    def test_numbers_in_place_of_ranges_change_nothing(self):
        fixed = EpisodeSampler(numbered([9] * 8), n_way=5, k_shot=3, num_query=4).sample(
            3, generator=generator()
        )
        ranged = self.sampler.sample(3, generator=generator())
        assert torch.equal(fixed.support.x, ranged.support.x)
        assert fixed.support.weight == ()

    @pytest.mark.parametrize(
        ("counts", "error", "message"),
        [
            ({"n_way": (5, 2)}, ValueError, "Pass n_way=(2, 5)."),
            ({"n_way": (0, 2)}, ValueError, "n_way must be at least 1"),
            ({"k_shot": (1, 2, 3)}, TypeError, "(fewest, most)"),
            ({"n_way": (2, 9)}, ValueError, "n_way must be at most 8"),
            ({"k_shot": (1, 9)}, ValueError, "k_shot + num_query"),
        ],
    )
    def test_bad_ranges(self, counts, error, message):
        with pytest.raises(error) as raised:
            EpisodeSampler(numbered([9] * 8), **{"n_way": 2, "k_shot": 1, "num_query": 1, **counts})
        assert message in str(raised.value)
