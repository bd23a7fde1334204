"""What `benchmarks.compare` prints: a commit before, the working tree after."""

import shutil
import subprocess
import sys
import tempfile

import pytest

from benchmarks import compare
from benchmarks.speed._process import ROOT

ONE_CALL_MORE = """
_forward = outer.MetaLearner.forward
outer.MetaLearner.forward = lambda *args, **kwargs: _forward(*args, **kwargs)
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with this package in one commit, and an empty folder for temporary ones."""
    folder, temporary = tmp_path / "repository", tmp_path / "temporary"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "metalearn", folder / "metalearn", ignore=skipped)
    temporary.mkdir()
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "One"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    monkeypatch.setattr(compare, "ROOT", folder)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield folder
    assert not list(temporary.iterdir())


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    compare.main()


def test_a_change_shows(repository, monkeypatch, capsys):
    with (repository / "metalearn" / "__init__.py").open("a") as file:
        file.write(f"{ONE_CALL_MORE}del outer.ClipPerTask\n")
    run(monkeypatch, "HEAD", "--only", "W1 sine, 1 *", "W1 Clip*", "--rounds", "1")
    printed = capsys.readouterr().out
    assert "before: " in printed
    assert "1 file changed" in printed
    row, failed = (line for line in printed.splitlines() if line.startswith("W1"))
    *_, before, after, peak_before, peak_after = row.split()
    assert int(after) == int(before) + 1
    assert min(float(peak_before), float(peak_after)) > 0
    assert failed.startswith("W1 ClipPerTask, 25 tasks: failed after: AttributeError: ")


def test_a_package_that_does_not_start(repository, monkeypatch):
    (repository / "metalearn" / "__init__.py").write_text("from metalearn import missing")
    with pytest.raises(SystemExit, match=r"does not start after: died with .* ImportError"):
        run(monkeypatch, "HEAD")


@pytest.mark.parametrize("base", ["nowhere", "", "HEAD:metalearn"])
def test_no_commit(base, repository, monkeypatch):
    with pytest.raises(SystemExit, match=r"BASE must be a commit .* make bench-compare BASE="):
        run(monkeypatch, base)


def test_a_commit_without_the_package(repository, monkeypatch):
    subprocess.run(["git", "mv", "metalearn", "other"], cwd=repository, check=True)
    tree = subprocess.run(["git", "write-tree"], cwd=repository, capture_output=True, text=True)
    with pytest.raises(SystemExit, match="BASE must be a commit with a metalearn/"):
        run(monkeypatch, tree.stdout.strip())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "W9*"], "--only must match one of ['W1 sine, 1 task', "),
        (["--rounds", "0"], "--rounds must be at least 1; got 0."),
    ],
)
def test_options(words, said, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "HEAD", *words)
    assert said in capsys.readouterr().err
