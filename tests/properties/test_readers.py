"""Damaged files: each is read as what it was, or refused by name. Nothing hangs, crashes, or runs
what is in them."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metalearn import Evaluation, Summary
from metalearn.data import (
    ClassImages,
    _mini_imagenet,
    _readers,
    _splits,
    _tiered_imagenet,
    mini_imagenet,
    tiered_imagenet,
)
from tests.properties.damage import (
    bomb,
    damaged,
    damaged_json,
    damaged_pickle,
    read_or_refused,
    zipped,
)

PIXELS = np.random.default_rng(0).integers(256, size=(6, 4, 4, 3), dtype=np.uint8)
NAMES = ["a", "b", "c"]


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return np.frombuffer(stream.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of whole files, of every kind that is read."""
    root = tmp_path_factory.mktemp("files")
    images = PIXELS.reshape(3, 2, 4, 4, 3)
    np.savez_compressed(root / "images.npz", images=images, class_names=np.array(NAMES))
    for label, name in enumerate(NAMES):
        for place in ("images", "folder"):
            (root / place / name).mkdir(parents=True)
            for index in range(2):
                Image.fromarray(images[label, index]).save(
                    root / place / name / f"{name}{index}.png"
                )
    rows = [f"{name}{index}.png,{name}" for name in NAMES for index in range(2)]
    (root / "train.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    (root / "pickles").mkdir()
    content = {
        "image_data": PIXELS,
        "class_dict": {name: [2 * k, 2 * k + 1] for k, name in enumerate(NAMES)},
    }
    (root / "pickles" / "mini-imagenet-cache-train.pkl").write_bytes(
        pickle.dumps(content, protocol=2)
    )
    (root / "val_images_png.pkl").write_bytes(
        pickle.dumps([png(pixels) for pixels in PIXELS], protocol=2)
    )
    labels = {"label_specific": np.arange(6) // 2, "label_specific_str": NAMES}
    (root / "val_labels.pkl").write_bytes(pickle.dumps(labels, protocol=2))
    values = torch.linspace(0, 1, 5, dtype=torch.float64)
    Evaluation({"loss": Summary(values)}, 5, 3, "none", 7).save(root / "evaluation.json")
    (root / "splits").mkdir()
    (root / "splits" / "own.json").write_text(
        json.dumps({"train": ["a"], "val": ["b"], "test": ["c"]})
    )
    return root


@pytest.fixture(autouse=True)
def _small(monkeypatch, root):
    for module in (_mini_imagenet, _tiered_imagenet):
        monkeypatch.setattr(module, "NUM_CLASSES", {"train": 3, "val": 3, "test": 3})
        monkeypatch.setattr(module, "CACHE_FOLDER", "no-cache")
    monkeypatch.setattr(_mini_imagenet, "NUM_IMAGES", 2)
    monkeypatch.setattr(_mini_imagenet, "SIZE", 4)
    monkeypatch.setattr(_splits.resources, "files", lambda package: root)


def cached(root):
    return lambda: ClassImages.from_folder(root / "folder", 4, cache=root / "cache")


READERS = {
    "images.npz": lambda root: lambda: ClassImages.from_npz(root / "images.npz"),
    "folder/a/a0.png": lambda root: lambda: ClassImages.from_folder(root / "folder", 4),
    "train.csv": lambda root: lambda: mini_imagenet(root, "train", size=4),
    "pickles/mini-imagenet-cache-train.pkl": lambda root: (
        lambda: mini_imagenet(root / "pickles", "train", size=4)
    ),
    "val_images_png.pkl": lambda root: lambda: tiered_imagenet(root, "val", size=4),
    "val_labels.pkl": lambda root: lambda: tiered_imagenet(root, "val", size=4),
    "evaluation.json": lambda root: lambda: Evaluation.load(root / "evaluation.json"),
    "splits/own.json": lambda root: lambda: _splits.class_names_of("own", "train"),
}
"""What reads each file."""


def damages(file, content, marker):
    if file.suffix == ".json":
        return damaged_json(content)
    return damaged_pickle(content, marker) if file.suffix == ".pkl" else damaged(content)


def check(name, value):
    """Raise unless what was read is whole, and the very same where the file has a checksum."""
    if isinstance(value, ClassImages):
        assert value.pixels.dtype == torch.uint8
        assert len(value.pixels) == sum(value.num_images)
        assert name != "images.npz" or np.array_equal(value.pixels.permute(0, 2, 3, 1), PIXELS)
    if isinstance(value, Evaluation):
        assert str(value)
        assert all(len(summary.values) == value.num_tasks for summary in value.values())


@pytest.mark.parametrize("name", READERS)
@given(draws=st.data())
def test_damaged_files(name, draws, root):
    file, read, marker = root / name, READERS[name](root), root / "ran"
    whole = file.read_bytes()
    try:
        value = read_or_refused(read, file, draws.draw(damages(file, whole, marker)))
    finally:
        file.write_bytes(whole)
    assert not marker.exists()
    if value is not None:
        check(name, value)


@pytest.mark.parametrize("suffix", ["npy", "json"])
@given(draws=st.data())
def test_a_damaged_cache_is_made_again(suffix, draws, root):
    cached(root)()
    (file,) = (root / "cache").glob(f"*.{suffix}")
    whole = file.read_bytes()
    file.write_bytes(draws.draw(damaged_json(whole) if suffix == "json" else damaged(whole)))
    images = cached(root)()
    assert images.pixels.dtype == torch.uint8
    assert np.array_equal(images.pixels.permute(0, 2, 3, 1), PIXELS)
    assert images.class_names == tuple(NAMES)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_place_of_a_file(name, root, tmp_path):
    file, read = root / name, READERS[name](root)
    file.rename(tmp_path / "whole")
    file.mkdir()
    try:
        with pytest.raises((ValueError, OSError)) as caught:
            read()
    finally:
        file.rmdir()
        (tmp_path / "whole").rename(file)
    assert str(caught.value)


def header(shape):
    """Return the first bytes of an array file."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def test_an_archive_that_claims_more_than_it_holds(tmp_path):
    (tmp_path / "a.npz").write_bytes(
        zipped(**{"images.npy": header((10**4, 10**3, 32, 32)), "class_names.npy": b""})
    )
    with pytest.raises(
        ValueError, match=r"a\.npz must be an \.npz .*; got images claims 10,240,000,000 bytes"
    ):
        ClassImages.from_npz(tmp_path / "a.npz")


def test_an_archive_that_grows_beyond_measure(tmp_path, monkeypatch):
    np.savez_compressed(
        tmp_path / "a.npz",
        images=np.zeros((4, 2, 300, 300), np.uint8),
        class_names=np.array(list("abcd")),
    )
    assert len(ClassImages.from_npz(tmp_path / "a.npz")) == 4
    monkeypatch.setattr(_readers, "ALWAYS_READ", 10_000)
    with pytest.raises(
        ValueError, match=r"a\.npz .*; got images claims 720,128 bytes in \d+ compressed ones"
    ):
        ClassImages.from_npz(tmp_path / "a.npz")


def test_a_list_that_holds_itself_many_times_over_is_refused_at_once(tmp_path):
    for key in ("image_data", "class_dict"):
        content = {"image_data": PIXELS, "class_dict": {"a": [0]}} | {
            key: {"a": bomb()} if key == "class_dict" else bomb()
        }
        (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"mini-imagenet-cache-train\.pkl must be a pickle of"):
            mini_imagenet(Path(tmp_path), "train", size=4)
