"""Every table of the papers runs, for a few iterations of its first row, and says how ours compares."""

import json
import sys
from importlib import import_module

import pytest

from benchmarks.tables import __main__ as tables
from benchmarks.tables._experiment import mark

ROWS = {
    "sine_turtle": "TURTLE 5 *",
    "turtle_inputs": "processed gradient, 1 *",
    "sine_mtnet": "MT-net",
    "sine_rates": "MAML",
    "polynomial": "order 1",
    "linear": "LR + KFC",
}


@pytest.mark.parametrize("name", tables.NAMES)
def test_a_row(name, tmp_path, monkeypatch, capsys):
    column = {"sine_turtle": "5-shot", "sine_rates": "0.01", "linear": "10 points*", "polynomial": "*code"}.get(
        name, "*"
    )
    words = [name, "--rows", ROWS[name], "--columns", column, "--seeds", "2", "--fraction", "0.00003", "--no-compile"]
    monkeypatch.setattr(sys, "argv", ["tables", *words, "--device", "cpu", "--out", str(tmp_path)])
    tables.main()
    assert import_module(f"benchmarks.tables.{name}").TABLE.title.split(",")[0] in capsys.readouterr().out
    (file,) = (tmp_path / name).glob("*.json")
    assert all(len(values) == 2 for values in json.loads(file.read_text())["values"].values())
    monkeypatch.setattr(tables, "run", None)
    tables.main()  # does not run again what is written
    assert "|" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "paper", "expected"),
    [
        ([0.5, 0.5], "0.50 +- 0.01", "within"),
        ([0.514, 0.514], "0.50 +- 0.01", "within"),  # of a number rounded to two digits
        ([0.516, 0.516], "0.50 +- 0.01", "worse"),
        ([0.4, 0.4], "0.50", "better"),
        ([0.3, 0.5], "0.50 +- 0.01", "within"),
        ([0.3, 0.5], "", ""),
    ],
)
def test_marks(values, paper, expected):
    assert mark(values, paper, lower_is_better=True) == expected
