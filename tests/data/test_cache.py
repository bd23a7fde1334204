"""Caches of decoded images: whatever happens to one, what is read is what is in the images."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metalearn.data import ClassImages, _cache
from metalearn.data._cache import Classes, cached, read_files
from metalearn.data._decoding import Decoding

MAPS = Path("/proc/self/maps")


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, number in (("cat", 3), ("dog", 2)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(number):
            pixels = generator.integers(256, size=(9, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The files that have been decoded."""
    files = []
    decode = Decoding.decode

    def spy(self, file, encoded=None):
        files.append(file)
        return decode(self, file, encoded)

    monkeypatch.setattr(Decoding, "decode", spy)
    return files


def check(folder, cache, size=6, mode="RGB"):
    """Raise unless the cache gives what decoding gives."""
    expected = ClassImages.from_folder(folder, size, mode)
    images = ClassImages.from_folder(folder, size, mode, cache=cache)
    assert torch.equal(images.pixels, expected.pixels)
    assert images.class_names == expected.class_names
    assert images.num_images == expected.num_images
    return images


def pixel_file(cache):
    (file,) = cache.glob("*.npy")
    return file


def test_images_are_decoded_once(folder, cache, decoded):
    first = ClassImages.from_folder(folder, 6, cache=str(cache))
    assert len(decoded) == 5
    second = ClassImages.from_folder(folder, 6, cache=cache)
    assert len(decoded) == 5
    assert torch.equal(first.pixels, second.pixels)
    check(folder, cache)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_cache_holds_what_decoding_gives(folder, cache, mode):
    for size in (6, (5, 8), 6):
        check(folder, cache, size, mode)
    assert len(list(cache.iterdir())) == 4, "pixels and json of two sizes"


def test_images_are_mapped_and_not_copied(folder, cache):
    pixels = check(folder, cache).pixels
    if MAPS.exists():
        assert pixel_file(cache).name in MAPS.read_text()
    before = pixel_file(cache).read_bytes()
    pixels.zero_()
    assert pixel_file(cache).read_bytes() == before, "a write to the tensor leaves the file alone"


def test_mapped_images_copy_and_pickle(folder, cache):
    images = check(folder, cache)
    assert torch.equal(pickle.loads(pickle.dumps(images)).pixels, images.pixels)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def flip(file):
    damaged = bytearray(file.read_bytes())
    damaged[-20] ^= 1
    file.write_bytes(damaged)


def empty(file):
    file.write_bytes(b"")


def no_array(file):
    file.write_text("no array")


@pytest.mark.parametrize("damage", [cut, flip, empty, no_array, os.unlink])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_is_written_again(folder, cache, decoded, damage, suffix):
    ClassImages.from_folder(folder, 6, cache=cache)
    damage(pixel_file(cache).with_suffix(suffix))
    check(folder, cache)
    assert len(decoded) == 5 + 5 + 5
    ClassImages.from_folder(folder, 6, cache=cache)
    assert len(decoded) == 15


@pytest.mark.parametrize(("said", "damaged"), [('"cat"', '"cap"'), ("[3, 2]", "[2, 3]")])
def test_a_damaged_description_is_not_accepted(folder, cache, said, damaged):
    check(folder, cache)
    file = pixel_file(cache).with_suffix(".json")
    assert said in file.read_text()
    file.write_text(file.read_text().replace(said, damaged))
    check(folder, cache)


def test_an_array_of_another_shape_is_not_accepted(folder, cache):
    check(folder, cache)
    np.save(pixel_file(cache), np.load(pixel_file(cache)).reshape(5, 3, 4, 9))
    check(folder, cache)


def test_changed_images_are_decoded_again(folder, cache):
    check(folder, cache)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(folder / "cat" / "1.png")
    check(folder, cache)
    (folder / "cat" / "0.png").rename(folder / "cat" / "3.png")
    check(folder, cache)
    (folder / "dog" / "0.png").unlink()
    check(folder, cache)
    (folder / "dog").rename(folder / "wolf")
    assert check(folder, cache).class_names == ("cat", "wolf")


def test_a_changed_time_is_a_change(folder, cache, decoded):
    ClassImages.from_folder(folder, 6, cache=cache)
    os.utime(folder / "cat" / "1.png", (1, 1))
    ClassImages.from_folder(folder, 6, cache=cache)
    assert len(decoded) == 10


def test_folders_of_one_name_share_a_cache(folder, cache, tmp_path, decoded):
    other = tmp_path / "other" / "images"
    other.parent.mkdir()
    folder.joinpath("cat").rename(tmp_path / "cat")
    folder.rename(other)
    (folder / "bird").mkdir(parents=True)
    (tmp_path / "cat" / "0.png").rename(folder / "bird" / "0.png")
    for _ in range(2):
        assert ClassImages.from_folder(folder, 6, cache=cache).class_names == ("bird",)
        assert ClassImages.from_folder(other, 6, cache=cache).class_names == ("dog",)
    assert len(decoded) == 3


def test_a_damaged_image_is_named_and_nothing_is_left(folder, cache):
    (folder / "dog" / "1.png").write_text("damaged")
    with pytest.raises(ValueError, match=r"dog.1\.png must be a readable image"):
        ClassImages.from_folder(folder, 6, cache=cache)
    assert list(cache.iterdir()) == []


def write_and_die(folder, cache):
    rename = type(cache).replace

    def replace(self, target):
        if self.suffix == ".json":
            os._exit(9)
        return rename(self, target)

    type(cache).replace = replace
    ClassImages.from_folder(folder, 6, cache=cache)


def write(folder, cache):
    for _ in range(5):
        check(folder, cache)
        for file in cache.glob("*.json"):
            file.unlink(missing_ok=True)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_what_a_killed_writer_leaves_is_not_accepted(folder, cache, decoded):
    ClassImages.from_folder(folder, 6, cache=cache)
    Image.new("RGB", (4, 4)).save(folder / "cat" / "1.png")
    process = multiprocessing.get_context("fork").Process(
        target=write_and_die, args=(folder, cache)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    decoded.clear()
    check(folder, cache)
    assert len(decoded) == 10


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_what_a_killed_writer_leaves_is_removed_once_it_is_old(folder, cache):
    process = multiprocessing.get_context("fork").Process(
        target=write_and_die, args=(folder, cache)
    )
    process.start()
    process.join()
    ClassImages.from_folder(folder, 6, cache=cache)
    (left,) = cache.glob("*.part")  # which another process may still be writing
    for file in (left, *left.iterdir()):
        os.utime(file, (0, 0))
    Image.new("RGB", (4, 4)).save(folder / "cat" / "1.png")
    ClassImages.from_folder(folder, 6, cache=cache)
    assert not list(cache.glob("*.part"))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_writers_at_the_same_time(folder, cache):
    processes = [
        multiprocessing.get_context("fork").Process(target=write, args=(folder, cache))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not list(cache.glob("*.part"))


def test_memory_holds_one_class_at_a_time(cache):
    alive = []

    def blocks():
        for label in range(4):
            written = sum(file.stat().st_size for file in cache.glob("*.part/*.npy"))
            alive.append(written >= label * 2 * 3_000_000)
            yield np.full((2, 3, 1000, 1000), label, np.uint8)

    classes = {str(label): 2 for label in range(4)}
    images = cached(cache, "big", "source", lambda: Classes(classes, (3, 1000, 1000), blocks()))
    assert alive == [True] * 4
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert json.loads((cache / "big.json").read_text())["class_names"] == ["0", "1", "2", "3"]


def test_a_full_disk_is_an_error(folder, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache, "_write_pixels", full)
    with pytest.raises(
        OSError, match=r"cache .*\.npy must be written; got .*No space left.*Make room, or choose"
    ):
        ClassImages.from_folder(folder, 6, cache=cache)
    assert list(cache.iterdir()) == []


def test_a_cache_that_is_no_folder(folder):
    with pytest.raises(OSError, match=r"cache .* must be written; got .*exists"):
        ClassImages.from_folder(folder, 6, cache=folder / "cat" / "0.png")
    with pytest.raises(TypeError, match=r"cache must be a path; got True\. Pass a string"):
        ClassImages.from_folder(folder, 6, cache=True)


def test_a_cache_that_cannot_be_written_is_only_read(folder, tmp_path, monkeypatch, decoded):
    files = {"cat": sorted((folder / "cat").iterdir())}
    expected = read_files(files, Decoding(6), tmp_path / "kept", "cats")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    decoded.clear()
    assert np.array_equal(
        read_files(files, Decoding(6), tmp_path / "kept", "cats").pixels, expected.pixels
    )
    assert decoded == []
    assert np.array_equal(
        read_files(files, Decoding(6), tmp_path / "absent", "cats").pixels, expected.pixels
    )
    assert len(decoded) == 3
    assert not (tmp_path / "absent").exists()
