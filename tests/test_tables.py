"""Every table of the papers runs, for a few iterations of its first row, and says how ours
compares."""

import json
import sys
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F

from benchmarks.tables import __main__ as tables
from benchmarks.tables._experiment import VALIDATION_SEED, Settings, cell, score, train
from metalearn import Summary, data, inner, models, outer

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
    column = {
        "sine_turtle": "5-shot",
        "sine_rates": "0.01",
        "linear": "10 points*",
        "polynomial": "*code",
    }.get(name, "*")
    words = [
        name,
        "--rows",
        ROWS[name],
        "--columns",
        column,
        "--seeds",
        "2",
        "--fraction",
        "0.00003",
        "--no-compile",
    ]
    monkeypatch.setattr(sys, "argv", ["tables", *words, "--device", "cpu", "--out", str(tmp_path)])
    tables.main()
    assert (
        import_module(f"benchmarks.tables.{name}").TABLE.title.split(",")[0]
        in capsys.readouterr().out
    )
    (file,) = (tmp_path / name).glob("*.json")
    assert all(
        len(ours["values"]) == 2 for ours in json.loads(file.read_text())["summaries"].values()
    )
    monkeypatch.setattr(tables, "run", None)
    tables.main()  # does not run again what is written
    assert "|" in capsys.readouterr().out


def over_runs(values, tasks=None):
    return Summary(
        torch.tensor(values), "runs", None if tasks is None else Summary(torch.tensor(tasks))
    )


@pytest.mark.parametrize(
    ("values", "paper", "expected"),
    [
        ([0.5, 0.5], "0.50 +- 0.01", "0.5 +- 0 (0.50 +- 0.01, within)"),
        # of a number rounded to two digits
        ([0.514, 0.514], "0.50 +- 0.01", "0.514 +- 0 (0.50 +- 0.01, within)"),
        ([0.516, 0.516], "0.50 +- 0.01", "0.516 +- 0 (0.50 +- 0.01, worse)"),
        ([0.4, 0.4], "0.50", "0.4 +- 0 (0.50, better)"),
        # above a quarter of its mean
        ([0.3, 0.5], "0.40 +- 0.01", "0.4 +- 1.3* (0.40 +- 0.01, within)"),
        ([0.3, 0.5], "", "0.4 +- 1.3*"),
        ([0.5], "0.50 +- 0.01", "0.5 +- nan (0.50 +- 0.01)"),  # of one run nothing can be said
    ],
)
def test_cells(values, paper, expected):
    assert cell(over_runs(values), paper, lower_is_better=True) == expected


def test_seeds_are_few():
    ours = over_runs([0.39, 0.41, 0.43, 0.42, 0.40])  # +- 0.014 if they were many
    # by our own interval alone
    assert cell(ours, "0.39 +- 0.005", True) == "0.41 +- 0.02* (0.39 +- 0.005, within)"
    assert cell(ours, "0.39 +- 0.02", True) == "0.41 +- 0.02 (0.39 +- 0.02, within)"
    assert cell(ours, "0.38 +- 0.005", True) == "0.41 +- 0.02 (0.38 +- 0.005, worse)"


def test_shared_tasks_are_in_both_intervals():
    runs, tasks = [0.52, 0.52], [0.3, 0.72] * 300  # whose mean has an interval of 0.017
    assert cell(over_runs(runs), "0.50 +- 0.01", True) == "0.52 +- 0 (0.50 +- 0.01, worse)"
    assert (
        cell(over_runs(runs, tasks), "0.50 +- 0.01", True) == "0.52 +- 0.017 (0.50 +- 0.01, within)"
    )


def test_a_summary_is_the_same_when_read_again():
    summary = over_runs([0.1, 1 / 3], [0.2, 0.3, 0.7])
    again = tables.read(json.loads(json.dumps(tables.entries_of(summary))))
    assert (again.mean, again.interval) == (pytest.approx(summary.mean), summary.interval)
    assert again.ci95 == pytest.approx(summary.ci95)
    assert tables.read(tables.entries_of(over_runs([0.1, 0.2]))).tasks is None


def test_every_seed_has_test_tasks_of_its_own_unless_the_paper_shares_them():
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    replicas, tasks = outer.Replicas([learner, learner]), data.Sinusoid(5, num_query=5)
    own = score(replicas, tasks, num_tasks=40)
    assert own.tasks is None
    assert own.values[0] != own.values[1]
    shared = score(replicas, tasks, num_tasks=40, task_seeds=[7, 7])
    assert len(shared.tasks.values) == 40
    assert shared.ci95 == pytest.approx(shared.tasks.ci95)


def test_a_best_validation_is_scored_as_it_was():
    def build(seed):
        return outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)

    tasks, settings = data.Sinusoid(5, num_query=5), Settings(2, "cpu", 1.0, False)
    options = {
        "num_iterations": 6,
        "meta_batch_size": 1,
        "lr": 0.1,
        "validate": tasks,
        "validate_every": 2,
    }
    replicas, history = train(build, tasks, settings, **options)
    again = score(replicas, tasks, num_tasks=1000, task_seeds=[VALIDATION_SEED] * 2)
    best = torch.tensor(list(history.scores.values())).amin(0).double()
    torch.testing.assert_close(again.values, best, rtol=1e-5, atol=0)
