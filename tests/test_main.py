"""The command line as a user calls it, on small inputs."""

import subprocess
import sys

import numpy as np
import pytest

from metalearn.__main__ import main


def test_demo_prints_a_table_and_draws(tmp_path, capsys):
    assert main(["demo", "--iterations", "3", "--tasks", "8", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for row in (
        "before adaptation",
        "after 1 step",
        "after 5 steps",
        "after 10 steps",
        "from scratch",
    ):
        assert row in printed
    assert (tmp_path / "sine.png").stat().st_size > 10_000


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npz"
    images = rng.integers(0, 256, (18, 8, 28, 28), dtype=np.uint8)
    names = np.array([f"class {index}" for index in range(18)])
    np.savez(path, images=images, class_names=names, split=np.array(["train"] * 9 + ["test"] * 9))
    return path


def test_omniglot_from_an_archive(archive, tmp_path, capsys):
    words = [
        "omniglot",
        "--npz",
        str(archive),
        "--iterations",
        "2",
        "--num-filters",
        "4",
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "train: ClassImages(36 classes" in printed
    assert "test:  ClassImages(9 classes" in printed
    assert "accuracy" in printed
    assert "batch statistics: transductive" in printed
    assert (tmp_path / "omniglot.pt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["omniglot", "--npz", "missing.npz"], "missing.npz"),
        (["omniglot", "--root", "missing"], "download"),
        (["demo", "--iterations", "0"], "num_iterations must be at least 1; got 0"),
        (["demo", "--tasks", "0"], "--tasks must be at least 1; got 0"),
        (
            ["demo", "--out", "/dev/null"],
            "--out must be a folder that can be written; got /dev/null",
        ),
    ],
)
def test_bad_input_is_one_line_on_standard_error(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_commands():
    call = subprocess.run(
        [sys.executable, "-m", "metalearn", "--help"], capture_output=True, text=True
    )
    assert call.returncode == 0
    assert "demo" in call.stdout
    assert "omniglot" in call.stdout
