"""The commands that the pages print are those that the records beside them were made with."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks._records import Record
from benchmarks.pages import DOCS, pages

MARK = re.compile(r"<!-- record: ([\w-]+) -->")
HEADING = re.compile(r"^(#+) .*$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`([^`]+)`", re.DOTALL | re.MULTILINE)
NUMBERS = {
    "seeds": "--seeds",
    "fraction": "--fraction",
    "minutes": "--minutes",
    "rounds": "--rounds",
}
"""Settings of a record that an option of its command says."""


def flags(command: str) -> dict[str, str]:
    """Return a command's options and what follows each."""
    options: dict[str, str] = {}
    name = ""
    for word in shlex.split(command):
        if word.startswith("--"):
            name = word
            options[name] = ""
        elif name:
            options[name] = f"{options[name]} {word}".strip()
    return options


def sections(page: str) -> list[tuple[int, int, int]]:
    """Return where each section begins and its first part ends, and how deep it is."""
    headings = [(found.start(), len(found[1])) for found in HEADING.finditer(page)] + [
        (len(page), 0)
    ]
    return [(start, end, depth) for (start, depth), (end, _) in pairwise(headings)]


def section(page: str, at: int) -> tuple[int, int]:
    """Return where the section of a place begins and ends."""
    return next((start, end) for start, end, _ in sections(page) if start < at < end)


def codes(text: str) -> list[str]:
    """Return the code in lines of text, each on a line."""
    return [" ".join(code.split()) for code in CODE.findall(text)]


def code_around(page: str, at: int) -> list[str]:
    """Return the code in the section of a place, and in what its parents say before their first
    part."""
    texts, below = [], 7
    for start, end, depth in reversed(sections(page)):
        if start < at and depth < below:
            texts.append(page[start:end])
            below = depth
    return [code for text in texts for code in codes(text)]


CASES = [(path, mark) for path in pages() for mark in MARK.finditer(path.read_text())]


@pytest.mark.parametrize(
    ("path", "mark"), CASES, ids=lambda case: getattr(case, "stem", None) or case[1]
)
def test_a_page_prints_the_options_of_its_records(path: Path, mark: re.Match[str]):
    recorded = flags(Record.read(DOCS / "records" / f"{mark[1]}.json").command)
    printed = [flags(code) for code in code_around(path.read_text(), mark.start()) if "--" in code]
    for name, value in recorded.items():
        values = [options[name] for options in printed if name in options]
        assert value in values, (
            f"{mark[1]}: {name} {value} was recorded; {path.name} prints {values}"
        )


@pytest.mark.parametrize(
    ("path", "mark"), CASES, ids=lambda case: getattr(case, "stem", None) or case[1]
)
def test_a_whole_command_is_that_of_a_record(path: Path, mark: re.Match[str]):
    page = path.read_text()
    start, end = section(page, mark.start())
    commands = [
        Record.read(DOCS / "records" / f"{name}.json").command
        for name in MARK.findall(page[start:end])
    ]
    recorded = [(name, value) for command in commands for name, value in flags(command).items()]
    for code in codes(page[start:end]):
        if "python -m" in code:
            wrong = {
                name: value for name, value in flags(code).items() if (name, value) not in recorded
            }
            assert not wrong, f"{path.name} prints {wrong}, which none of {commands} has"


@pytest.mark.parametrize("path", sorted((DOCS / "records").iterdir()), ids=lambda path: path.stem)
def test_a_command_has_the_settings_of_its_record(path: Path):
    record = Record.read(path)
    options = flags(record.command)
    for setting, option in NUMBERS.items():
        if option in options and setting in record.settings and not options[option].isupper():
            assert float(options[option]) == record.settings[setting], (
                f"{option} of {record.command}"
            )
