"""The pages: their code does what they say, their links lead somewhere, their tables are what was
recorded."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks._records import Record, show
from benchmarks.pages import DOCS, MARKED, pages, written
from metalearn import data

ROOT = DOCS.parent
FOLDERS = [f"{path.parent.name}/{path.stem}" for path in pages() if path.parent != DOCS]
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)\)|\]\(([^)#:\s]*)#([^)\s]+)\)")
MANY = re.compile(r"\b\d+_000\b|(?<=num_tasks=)\d+")
"""Numbers of iterations and tasks, of which the test takes two."""
ALONE = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29517",
}


@pytest.fixture
def somewhere(monkeypatch, tmp_path):
    """A folder to write to, one process as torchrun starts it, and images in place of a
    download."""
    monkeypatch.chdir(tmp_path)
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    images = data.ClassImages(torch.randint(256, (8, 18, 3, 32, 32), dtype=torch.uint8))
    monkeypatch.setattr(data, "cifar_fs", lambda root, split, download: images)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", ["gotchas", "few_shot_images", *FOLDERS])
def test_code(name, somewhere, capsys, monkeypatch):
    page = ModuleType("page")  # as a script, whose classes can be pickled
    monkeypatch.setitem(sys.modules, "page", page)
    names = vars(page)
    for code in CODE.findall(MANY.sub("2", (DOCS / f"{name}.md").read_text())):
        expected = re.match(r"# raises: (.*)\n", code)
        if expected is None:
            exec(compile(code, name, "exec"), names)
            continue
        with pytest.raises((TypeError, ValueError, RuntimeError), match=re.escape(expected[1])):
            exec(compile(code, name, "exec"), names)


@pytest.mark.parametrize(
    "path",
    [*pages(), ROOT / "README.md", *(ROOT / "metalearn").rglob("README.md")],
    ids=lambda path: path.stem,
)
def test_links(path):
    for file, other, anchor in LINK.findall(path.read_text()):
        to = (path.parent / (file or other)) if file or other else path
        if "reference" in to.parts:
            continue  # made by the build, which checks these
        assert to.exists(), f"{path.name} links to {to}, which is not there"
        assert not anchor or anchor in anchors(to), (
            f"{path.name} links to #{anchor}, which {to.name} does not have"
        )


def anchors(path: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_tables_are_those_of_the_records(path):
    assert written(path.read_text()) == path.read_text(), "python -m benchmarks.pages writes them"


def test_every_record_is_shown_once():
    shown = [name for path in pages() for name in MARKED.findall(path.read_text())]
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "records").iterdir())


@pytest.mark.parametrize("path", sorted((DOCS / "records").iterdir()), ids=lambda path: path.stem)
def test_every_interval_is_named(path):
    record = Record.read(path)
    if any("+-" in cell for row in record.rows for cell in row):
        assert record.settings["interval"].startswith("95 % over ")
        assert record.markdown().endswith(f"\n\n+-: {record.settings['interval']}.")


def test_what_a_benchmark_shows_is_recorded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["tables", "linear", "--show", "--record", "x.json", "--rows", "LR + KFC"]
    )
    show(
        ["", "error"],
        [["MAML", "0.5"], ["Reptile", ""]],
        {"seeds": 5},
        tmp_path / "records" / "linear.json",
    )
    printed = capsys.readouterr().out
    assert printed == "| | error |\n|---|---|\n| MAML | 0.5 |\n| Reptile | |\n"
    record = Record.read(tmp_path / "records" / "linear.json")
    assert record.command.endswith("linear --rows 'LR + KFC'")
    assert record.settings["seeds"] == 5
    assert written("<!-- record: linear -->\n\n| old |\n", tmp_path / "records").endswith(
        f"\n\n{printed}"
    )
    named = {"interval": "95 % over 5 seeds"}
    show(["", "error"], [["MAML", "0.5 +- 0.1"]], named, tmp_path / "records" / "linear.json")
    page = "<!-- record: linear -->\n\n| old |\n\n+-: old.\n\nText.\n"
    table = "| | error |\n|---|---|\n| MAML | 0.5 +- 0.1 |\n\n+-: 95 % over 5 seeds.\n"
    assert written(page, tmp_path / "records") == f"<!-- record: linear -->\n\n{table}\nText.\n"


def test_a_row_has_a_cell_for_every_column():
    with pytest.raises(ValueError, match=r"rows must have 2 cells; got \['MAML'\]"):
        Record("", {}, ["", "error"], [["MAML"]])
