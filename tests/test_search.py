"""What `benchmarks.search` runs: a search within a bound of parameters, a second call that goes on,
and its picture."""

import json

import pytest
import torch

from benchmarks import search as benchmark
from metalearn import data, search


@pytest.fixture
def run(monkeypatch, tmp_path):
    images = data.ClassImages(
        torch.randint(256, (20, 6, 1, 8, 8), generator=torch.manual_seed(0)).byte()
    )
    splits = dict.fromkeys(("train", "val", "test"), images)
    monkeypatch.setattr(benchmark.Problem, "read", lambda *_: splits)
    monkeypatch.setattr(
        benchmark,
        "PROBLEM",
        benchmark.Problem(None, {"n_way": 20, "k_shot": 1, "num_query": 1}, {}, {}),
    )
    monkeypatch.setattr(search.ReptileScore, "judge", judge)  # tests/search trains
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    counts = [
        "--first",
        "2",
        "--candidates",
        "1",
        "--blocks",
        "2",
        "--filters",
        "2",
        "--iterations",
        "1",
        "--final",
        "1",
    ]
    words = [
        *counts,
        "--tasks",
        "1",
        "--final-tasks",
        "1",
        "--operators",
        "identity",
        "conv_3x3",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(
        "sys.argv",
        ["search", *words, "--out", str(tmp_path), "--record", str(tmp_path / "search.json")],
    )
    return benchmark.main


def judge(self, model):
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 20)
    return 1 / sum(param.numel() for param in model.parameters())


def test_it_runs_and_goes_on(run, tmp_path, capsys, monkeypatch):
    run()
    first = capsys.readouterr().out
    assert "| searched |" in first
    assert "3 candidates" in first
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "search.json").read_text())["settings"]["candidates"] == 3
    # what has been tried is not tried again
    monkeypatch.setattr(search.ReptileScore, "__call__", None)
    run()
    assert capsys.readouterr().out.splitlines()[0] == first.splitlines()[0]
