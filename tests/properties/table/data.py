"""Task distributions, images and their augmentations."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from metalearn import data
from metalearn._tree import tree_leaves
from metalearn.types import Batch, Episode
from tests.properties.entry import Entry
from tests.properties.strategies import (
    COUNTS,
    GENERATORS,
    POSITIVE,
    RANGES,
    class_images,
    sines,
    tensors,
)

DEVICES = st.sampled_from([None, "cpu", torch.device("cpu")])
WRONG_DEVICES = st.sampled_from(["gpu", "", "cpu:x", -7, 3.5, torch.float32])
IMAGES = tensors(2, 3, 3, 8, 8, dtype=torch.float32, low=0)
WRONG_IMAGES = st.sampled_from(
    [
        torch.zeros(2, 3, 1, 8, 8),
        torch.zeros(2, 3, 4, 8, 8),
        torch.zeros(3, 8, 8),
        torch.zeros(8, 8),
        torch.tensor(0.5),
        torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(0, 3, 3, 8, 8),
        torch.zeros(2, 3, 3, 0, 8),
    ]
)
PIXELS = class_images().map(lambda images: [images.of_class(name) for name in images.class_names])
SPLITS = st.sampled_from(["train", "val", "test"])


def sampled(made, /, **_):
    """Draw tasks; a leading axis of their number is on every tensor, and all are finite."""
    episodes = made.sample(3, generator=torch.Generator().manual_seed(0))
    assert all(leaf.shape[0] == 3 and leaf.isfinite().all() for leaf in tree_leaves(episodes))


def shots(made, /, k_shot, num_query, **_):
    sampled(made)
    episodes = made.sample(2)
    assert [part.x.shape[:2] for part in episodes] == [(2, k_shot), (2, num_query)]


def sample(tasks, **options):
    return tasks.sample(**options)


def batches(tasks, meta_batch_size, **options):
    return [next(tasks.batches(meta_batch_size, **options), None) for _ in range(2)]


TABLE = {
    "client": ["a", "b", "b", "a", "b", "a"],
    "age": [3, 4, 3, 4, 3, 4],
    "price": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
    "word": list("uvwxyz"),
}
GROUPED = data.Grouped(TABLE, by="client", x=["age", "price"], y="price")


def loader(batch_size=2):
    examples = TensorDataset(torch.rand(8, 1), torch.rand(8, 1))
    return DataLoader(examples, batch_size=batch_size, shuffle=True)


def windows(source, num_steps, **options):
    return next(data.windows(source, num_steps, **options))


def window(episodes, /, num_steps, num_tasks, **_):
    assert episodes.support.x.shape[:2] == (num_tasks, num_steps)
    assert episodes.query.x.shape[0] == num_tasks


def one_task(sizes):
    return Episode(*(Batch(torch.ones(size, 1), torch.ones(size)) for size in sizes))


def padded(episodes, /, **given):
    (tasks,) = given.values()
    assert all(len(leaf) == len(tasks) for leaf in tree_leaves(episodes))
    sizes = {tuple(len(batch.x) for batch in task) for task in tasks}
    assert [bool(tree_leaves(batch.weight)) for batch in episodes] == [len(sizes) > 1] * 2


def has_tasks(episodes, /, num_tasks, **_):
    assert all(leaf.shape[0] == num_tasks for leaf in tree_leaves(episodes))


def changed(result, /, images, **_):
    assert result.shape == images.shape


def compose(first, second):
    return data.Compose(first, second)


def dataset(items, **options):
    return data.ClassImages.from_dataset(items, **options)


def folder(path, size, mode, cache):
    with TemporaryDirectory() as root:
        for name in ("a", "b"):
            (of_class := Path(root) / "images" / name).mkdir(parents=True)
            Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(of_class / "0.png")
        in_root = [
            root + place if isinstance(place, str) and place[:1] == "/" else place
            for place in (path, cache)
        ]
        images = data.ClassImages.from_folder(in_root[0], size, mode, cache=in_root[1])
        return images.select(images.class_names)


def consistent(made, /, **_):
    assert made.pixels.dtype == torch.uint8
    assert len(made.pixels) == sum(made.num_images)
    assert len(made) == len(made.num_images) == len(made.class_names)


def absent(read):
    def call(root, **options):
        with TemporaryDirectory() as empty:
            return read(empty if root is True else root, **options)

    return call


def transformed(transform):
    return lambda images, generator: transform(images, generator)


ITEMS = st.lists(
    st.tuples(tensors(3, 6, 6, dtype=torch.uint8, high=256), st.integers(-2, 3)),
    min_size=1,
    max_size=5,
)
WRONG_ITEMS = st.sampled_from(
    [
        [(torch.zeros(6, 6, dtype=torch.uint8), 1), (torch.zeros(5, 6, dtype=torch.uint8), 1)],
        [(torch.zeros(6, 6), 1)],
        [(torch.zeros(6, 6, dtype=torch.uint8), "1")],
        [(torch.zeros(6, dtype=torch.uint8), 1)],
        [1],
        [{"image": 1}],
        {0: 1},
        [(Image.new("I;16", (4, 4)), 1)],
        [(Image.new("P", (4, 4)), 1)],
        [(torch.zeros(0, 6, dtype=torch.uint8), 1)],
        [(torch.tensor(1, dtype=torch.uint8), 1)],
        [(torch.zeros(1, 1, 3, 6, 6, dtype=torch.uint8), 1)],
        "ab",
    ]
)
WRONG_PIXELS = st.sampled_from(
    [
        torch.zeros(2, 3, 5, dtype=torch.uint8),
        torch.zeros(2, 3, 5, 5, 2, dtype=torch.uint8),
        [torch.zeros(0, 5, 5).byte()],
        torch.zeros(0, 3, 5, 5).byte(),
        [torch.zeros(2, 5, 5).byte(), torch.zeros(2, 5, 6).byte()],
        np.zeros((2, 3, 5, 5), ">u2"),
        torch.tensor(1, dtype=torch.uint8),
        [torch.tensor(1, dtype=torch.uint8)],
        np.zeros((2, 2, 5, 5), np.uint8)[..., ::-1],
        torch.zeros(2, 2, 0, 5).byte(),
    ]
)
WRONG_COUNTS = st.sampled_from(
    [(1, 3), (3, 1), (0, 2), (1, 2, 3), (1, "2"), (1.0, 2), [1, 2], 100, True]
)

DOWNLOADED = {"omniglot", "cifar_fs", "fc100"}

TASK = one_task((2, 2))
WRONG_TASKS = st.sampled_from(
    [
        TASK,
        [],
        [TASK.support],
        [TASK, one_task((0, 1))],
        [TASK, TASK._replace(query=Batch(torch.ones(2, 2), torch.ones(2)))],
        [TASK, TASK._replace(query=Batch(torch.ones(2, 1)))],
        [TASK, TASK._replace(query=Batch(torch.ones(2, 1), torch.ones(2).long()))],
        [TASK, TASK._replace(query=Batch(torch.ones(2, 1), torch.ones(3)))],
        [TASK, TASK._replace(query=TASK.query._replace(weight=torch.ones(3)))],
        [TASK._replace(query=Batch(None))],
    ]
)

ENTRIES = {
    "collate": Entry(
        data.collate,
        {"episodes": st.lists(st.tuples(COUNTS, COUNTS).map(one_task), min_size=1, max_size=3)},
        padded,
        {"episodes": WRONG_TASKS},
    ),
    "Sinusoid": Entry(
        data.Sinusoid,
        {
            "k_shot": COUNTS,
            "num_query": COUNTS,
            "amplitude": RANGES,
            "phase": RANGES,
            "frequency": RANGES,
            "x_range": RANGES,
            "noise_std": POSITIVE,
        },
        shots,
        {
            "phase": st.sampled_from(
                [(math.nan, 1), (True, 2), (1, 1), (-1e308, 1e308), (2**2000, 2**2001)]
            )
        },
    ),
    "Polynomial": Entry(
        data.Polynomial,
        {
            "k_shot": COUNTS,
            "num_query": COUNTS,
            "order": COUNTS,
            "coefficient_range": RANGES,
            "noise_std": POSITIVE,
        },
        shots,
        {"order": st.sampled_from([0, 2000])},
    ),
    "LinearClassification": Entry(
        data.LinearClassification, {"k_shot": COUNTS, "num_query": COUNTS, "dim": COUNTS}, shots
    ),
    "TaskDistribution.sample": Entry(
        sample,
        {"num_tasks": COUNTS, "generator": GENERATORS, "device": DEVICES},
        has_tasks,
        {"device": WRONG_DEVICES},
        {"tasks": sines()},
    ),
    "TaskDistribution.batches": Entry(
        batches,
        {
            "meta_batch_size": COUNTS,
            "num_batches": COUNTS,
            "generator": GENERATORS,
            "device": DEVICES,
            "num_workers": st.just(0),
        },
        wrong={
            "device": WRONG_DEVICES,
            "num_workers": st.sampled_from([-1, False, 0.0, None, "2"]),
        },
        given={"tasks": sines()},
    ),
    "windows": Entry(
        windows,
        {
            "source": st.sampled_from([loader(), [Batch(torch.ones(2, 3))] * 5]),
            "num_steps": COUNTS,
            "query": st.sampled_from([None, loader()]),
            "num_tasks": COUNTS,
            "generator": GENERATORS,
        },
        window,
        {
            "source": st.sampled_from([[], ["ab"], [1], iter([torch.ones(2)]), loader(3), [()]]),
            "query": st.sampled_from([data.Sinusoid(1, 1), torch.ones(2, 2), [None]]),
        },
    ),
    "Grouped": Entry(
        data.Grouped,
        {
            "table": st.just(TABLE),
            "by": st.sampled_from(["client", "age"]),
            "x": st.sampled_from(["age", ["age", "price"], {"left": "age"}]),
            "y": st.sampled_from(["price", ["age"]]),
            "support": st.floats(0.01, 0.99),
        },
        sampled,
        {
            "table": st.sampled_from(
                [{}, {"client": ["a", "a"]}, TABLE["age"], {**TABLE, "age": 1}]
            ),
            "by": st.sampled_from(["price", "no", ["client"]]),
            "x": st.sampled_from(["word", "no", [], ["age", ["price"]], {"left": 3}]),
            "support": st.sampled_from([0.0, 1.0, math.nan]),
        },
    ),
    "Grouped.select": Entry(
        lambda names: GROUPED.select(names),
        {"names": st.sampled_from(["a", ["a"], ["b", "a"]])},
        sampled,
        {"names": st.sampled_from([["a", "a"], [], "c", ["ab"], {"a"}, [1]])},
    ),
    "Grouped.weighted": Entry(
        lambda weights: GROUPED.weighted(weights),
        {"weights": st.fixed_dictionaries({"a": POSITIVE, "b": POSITIVE})},
        sampled,
        {"weights": st.sampled_from([{"a": 1}, {"a": 1, "b": 0}, {"a": 1, "b": "2"}, [1, 2]])},
    ),
    "Grouped.each": Entry(
        lambda **options: list(GROUPED.each(**options)),
        {"meta_batch_size": COUNTS, "generator": GENERATORS},
        lambda parts, /, **_: sum(len(part.support.x) for part in parts) == 2,
    ),
    "SupportAsQuery": Entry(data.SupportAsQuery, {"tasks": sines()}, sampled),
    "Zipped": Entry(
        data.Zipped,
        {"distributions": st.lists(sines(), min_size=1, max_size=2)},
        lambda tasks, /, distributions: len(tasks.sample(2).support.x) == len(distributions),
        {"distributions": st.sampled_from([[], [3], 3])},
    ),
    "CudaGraph": Entry(data.CudaGraph, {"tasks": sines()}, sampled),
    "Pool": Entry(
        data.Pool,
        {"tasks": sines(), "num_tasks": COUNTS, "seed": st.integers(0, 3)},
        sampled,
        {"seed": st.sampled_from([-1, 0.5])},
    ),
    "Shard": Entry(
        data.Shard,
        {"tasks": sines(), "num_shards": st.integers(2, 3), "index": st.integers(0, 1)},
        sampled,
        {"index": st.sampled_from([-1, 3])},
    ),
    "ClassImages": Entry(
        data.ClassImages,
        {"images": PIXELS, "class_names": st.none(), "layout": st.just("CHW")},
        consistent,
        {
            "images": WRONG_PIXELS,
            "layout": st.sampled_from(["HW", "HWC", "chw", None, ("C", "H", "W")]),
            "class_names": st.sampled_from(
                ["abc", ["a"] * 3, ["a", "b"], {"a", "b", "c"}, ["a", "b", 3], np.zeros(3)]
            ),
        },
    ),
    "ClassImages.from_dataset": Entry(
        dataset,
        {"items": ITEMS, "columns": st.none(), "size": st.none()},
        consistent,
        {"items": WRONG_ITEMS, "columns": st.sampled_from([("a", "b"), ["a"], "ab", ("a", 1)])},
    ),
    "ClassImages.from_folder": Entry(
        folder,
        {
            "path": st.just("/images"),
            "size": COUNTS,
            "mode": st.sampled_from(["L", "RGB", "RGBA"]),
            "cache": st.sampled_from([None, "/cache"]),
        },
        consistent,
        {
            "size": st.sampled_from([(3, 4), [3, 4], (3,), (3, 0), (3, 4.0)]),
            "mode": st.sampled_from(["rgb", "CMYK", ""]),
        },
    ),
    "ClassImages.from_npz": Entry(
        data.ClassImages.from_npz, {"path": st.just("absent.npz")}, always=False
    ),
    "ClassImages.random_split": Entry(
        lambda images, fractions, generator: images.random_split(fractions, generator),
        {
            "fractions": st.sampled_from([[1.0], [0.5, 0.5], (0.4, 0.6)]),
            "generator": GENERATORS,
        },
        lambda parts, /, fractions, **_: len(parts) == len(fractions),
        {"fractions": st.sampled_from([[], [0.5], [1, 1], 0.5, "ab", [0.01, 0.99]])},
        {"images": class_images()},
    ),
    "ClassImages.select": Entry(
        lambda images, names: images.select(names),
        {"names": st.sampled_from([["0"], "1", ("2", "0"), ["0", "1"]])},
        consistent,
        {"names": st.sampled_from([["0", "0"], ["9"], [0], {"0"}, [["0"]], ""])},
        {"images": class_images()},
    ),
    "ClassImages.rotated": Entry(
        lambda images, angles: images.rotated(angles),
        {"angles": st.sampled_from([(0,), (0, 90), [180], range(0, 360, 90)])},
        consistent,
        {"angles": st.sampled_from([(0, 360), (45,), (90.0,), (True,), "ab"])},
        {"images": class_images()},
    ),
    "ClassImages.of_class": Entry(
        lambda images, name: images.of_class(name),
        {"name": st.sampled_from("012")},
        given={"images": class_images()},
    ),
    "ClassImages.to": Entry(
        lambda images, device: images.to(device),
        {"device": DEVICES.filter(bool)},
        wrong={"device": WRONG_DEVICES},
        given={"images": class_images()},
    ),
    "EpisodeSampler": Entry(
        data.EpisodeSampler,
        {
            "classes": class_images(),
            "n_way": st.sampled_from([1, 3, (1, 3)]),
            "k_shot": st.sampled_from([1, 2, (1, 2)]),
            "num_query": COUNTS,
            "transform": st.sampled_from(
                [None, data.RandomFlip(), data.RandomCrop(1), data.Normalize(0.5, 0.5)]
            ),
        },
        sampled,
        {
            "n_way": WRONG_COUNTS,
            "k_shot": WRONG_COUNTS,
            "transform": st.sampled_from(
                [lambda x: x[:1], lambda x: None, lambda x: x.sum(), data.RandomFlip, torch.relu]
            ),
        },
        functions=frozenset({"transform"}),
    ),
    "MiniBatches": Entry(
        data.MiniBatches,
        {
            "source": st.one_of(class_images(), sines()),
            "batch_size": COUNTS,
            "transform": st.none(),
        },
        sampled,
        functions=frozenset({"transform"}),
    ),
    "RandomFlip": Entry(
        transformed(data.RandomFlip()),
        {"images": IMAGES, "generator": GENERATORS},
        changed,
        {"images": WRONG_IMAGES},
    ),
    "RandomCrop": Entry(
        lambda padding, images: data.RandomCrop(padding)(images),
        {"padding": COUNTS, "images": IMAGES},
        changed,
        {"images": WRONG_IMAGES},
    ),
    "Normalize": Entry(
        lambda mean, std, images: data.Normalize(mean, std)(images),
        {
            "mean": st.sampled_from([0.5, (0.5,)]),
            "std": st.sampled_from([0.5, (0.2,)]),
            "images": IMAGES,
        },
        changed,
        {
            "mean": st.sampled_from(
                [
                    (),
                    (0.1, 0.2, 0.3),
                    (0.1, 0.2),
                    [0.1, None],
                    (True,),
                    "abc",
                    math.nan,
                    torch.ones(3),
                ]
            ),
            "std": st.sampled_from([(), (0.1, 0.2, 0.3), 0, (0.0,), -1.0, "abc", math.inf]),
            "images": WRONG_IMAGES,
        },
    ),
    "Compose": Entry(
        compose,
        {"first": st.just(data.RandomFlip()), "second": st.just(data.Normalize(0.5, 0.5))},
        lambda made, /, **_: changed(made(torch.zeros(2, 3, 3, 8, 8)), torch.zeros(2, 3, 3, 8, 8)),
        functions=frozenset({"first", "second"}),
    ),
} | {
    name: Entry(
        absent(getattr(data, name)),
        {"root": st.just(True), "split": SPLITS, **more},
        given={"download": st.just(False)} if name in DOWNLOADED else {},
        wrong={
            "split": st.sampled_from(["valid", "Train", ["train"]]),
            "root": st.sampled_from(["", "\0", "a" * 5000]),
        },
        always=False,
    )
    for name, more in {
        "omniglot": {"angles": st.none(), "resample": st.just("nearest")},
        "cifar_fs": {},
        "fc100": {},
        "mini_imagenet": {"size": st.just(84)},
        "tiered_imagenet": {"size": st.just(84)},
        "cub": {"size": st.just(84)},
    }.items()
}

EXCLUDED = {
    "TaskDistribution": "abstract; its two methods are listed",
    "Augmentation": "abstract",
}
