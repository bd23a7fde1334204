"""Benchmarks without their archives end before any computing, with what to put where."""

import sys
from importlib import import_module

import numpy as np
import pytest

from benchmarks._archives import ARCHIVES, archive
from benchmarks.images._problems import PROBLEMS
from benchmarks.papers import _experiment

SENTENCE = "must be a folder with {}: .*METALEARN_DATA=folder"


@pytest.mark.parametrize("folder", [None, "empty"])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("papers.__main__", ["arnold_figure_1"]),
        ("papers.__main__", ["omniglot_5w1s"]),
        ("papers.__main__", ["lee_table_3_omniglot"]),
        ("papers.__main__", ["arnold_figure_2"]),
        ("search", []),
    ],
)
def test_without_the_data(folder, module, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    if folder:
        monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    monkeypatch.setattr(_experiment, "fit", None)  # nothing is trained
    monkeypatch.setattr(sys, "argv", [module, *words, "--device", "cpu"])
    with pytest.raises(SystemExit, match=SENTENCE.format("omniglot.npz")) as caught:
        import_module(f"benchmarks.{module}").main()
    assert ("not set" in str(caught.value)) == (folder is None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_archive_of_a_problem_is_described(name, monkeypatch):
    monkeypatch.delenv("METALEARN_DATA", raising=False)
    with pytest.raises(SystemExit, match=SENTENCE.format(r"[\w.]+")):
        PROBLEMS[name].images()


def test_one_that_is_there(tmp_path, monkeypatch):
    np.savez(tmp_path / "omniglot.npz", images=np.zeros(1))
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    assert archive("omniglot.npz") == tmp_path / "omniglot.npz"
    (tmp_path / "mini_imagenet").mkdir()
    assert archive("mini_imagenet") == tmp_path / "mini_imagenet"
    with pytest.raises(SystemExit, match="birds, as data.cub reads them.*Put it into folder/CUB"):
        archive("CUB_200_2011")
    with pytest.raises(SystemExit, match="caltech101_32.npz"):
        archive("caltech101_32.npz")
    assert set(ARCHIVES) >= {"omniglot.npz", "caltech101_32.npz"}
