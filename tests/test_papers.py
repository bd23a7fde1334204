"""Every command of `benchmarks.papers` runs, for a few iterations, and says how ours compares."""

import json
import signal
import sys

import pytest
import torch
import torch.nn.functional as F

from benchmarks._records import Record
from benchmarks.images import _problems
from benchmarks.papers import __main__ as papers
from benchmarks.papers import _curve, _experiment, _plot
from benchmarks.papers._entry import Entry
from benchmarks.papers._experiment import (
    VALIDATION_SEED,
    Experiment,
    Settings,
    Table,
    cell,
    score,
    train,
)
from benchmarks.papers._registry import DOCUMENTS, ENTRIES
from benchmarks.papers._results import entries_of, read, run
from benchmarks.tables import sine_turtle
from metalearn import Summary, data, inner, models, outer

CELLS = {
    "huisman_table_4": ("raw gradient and loss, 1 *", "ReLU"),
    "huisman_table_5": ("processed gradient, 1 *", "*"),
    "huisman_table_6": ("TURTLE 5 *", "5-shot"),
    "huisman_figure_11": ("fo-TURTLE, 2 *", "1 step"),
    "arnold_figure_1": ("LR + KFC", "10 points*"),
    "arnold_figure_a1": ("LR + KLin, 10 *", "*"),
    "lee_table_1": ("MT-net", "*"),
    "lee_table_2": ("MAML", "0.01"),
    "lee_figure_4": ("order 1", "*code"),
}
"""Rows and columns to run; of others the first."""
IMAGES = [name for name, entry in ENTRIES.items() if entry.table().images]
TABLES = [name for name in ENTRIES if name not in IMAGES]


def typed(monkeypatch, out, *words):
    monkeypatch.setattr(sys, "argv", ["papers", *words, "--device", "cpu", "--out", str(out)])
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    papers.main()


@pytest.fixture
def short(monkeypatch):
    """Validate and judge on few tasks, and draw curves through two points."""
    fit, evaluate = _experiment.fit, _experiment.evaluate

    def fit_briefly(*arguments, **options):
        return fit(*arguments, **{**options, "num_validation_tasks": 5})

    def evaluate_briefly(*arguments, **options):
        return evaluate(*arguments, **{**options, "num_tasks": 5})

    monkeypatch.setattr(_experiment, "fit", fit_briefly)
    monkeypatch.setattr(_experiment, "evaluate", evaluate_briefly)
    monkeypatch.setattr(_curve, "POINTS", 2)


@pytest.mark.parametrize("name", TABLES)
def test_a_row_of_a_table(name, short, tmp_path, monkeypatch, capsys):
    table = ENTRIES[name].table()
    first = table.experiments[0]
    rows, columns = CELLS.get(name, (first.row, next(iter(first.paper))))
    words = [name, "--rows", rows, "--columns", columns, "--seeds", "2"]
    words += ["--fraction", "0.00003", "--no-compile"]
    typed(monkeypatch, tmp_path, *words)
    assert table.title.split(",")[0] in capsys.readouterr().out
    files = sorted((tmp_path / name).glob("*.json"))
    found = [entry for file in files for entry in json.loads(file.read_text())["cells"].values()]
    assert all(len(entry["values"]) in (1, 2) for entry in found)
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert not list((tmp_path / name).glob("*/"))  # no checkpoints are left
    monkeypatch.setattr(papers, "run", None)
    typed(monkeypatch, tmp_path, *words)  # does not run again what is written
    assert "|" in capsys.readouterr().out


@pytest.fixture(scope="module")
def small():
    """Images of every data set, small, and networks for them."""
    pixels = torch.randint(256, (20, 34, 12, 12), generator=torch.manual_seed(0)).byte()
    grey = data.ClassImages(pixels)
    colour = data.ClassImages(pixels[:, :, None].expand(-1, -1, 3, -1, -1), layout="CHW")
    return {1: grey, 3: colour}


@pytest.fixture
def fake(small, monkeypatch):
    """Let every problem read small images, and have two filters."""

    def read(problem, device):
        splits = ("train", "val", "test", "CUB", "miniImageNet")
        return dict.fromkeys(splits, small[problem.model["in_channels"]])

    def network(problem, method, num_classes, statistics, num_filters=None):
        model = {**problem.model, **dict(method.model), "num_filters": 2, "downsample": "stride"}
        model["image_size"] = 12
        return models.conv4(num_classes=num_classes, batch_statistics=statistics, **model)

    monkeypatch.setattr(_problems.Problem, "read", read)
    monkeypatch.setattr(_problems.Problem, "network", network)
    monkeypatch.setattr(papers, "archive", lambda name: None)


@pytest.mark.parametrize("name", IMAGES)
def test_a_row_of_images(name, short, fake, tmp_path, monkeypatch, capsys):
    experiments = ENTRIES[name].table().experiments
    row = experiments[len(experiments) // 2].row
    typed(monkeypatch, tmp_path, name, "--rows", row, "--fraction", "1e-6", "--tasks", "2")
    printed = capsys.readouterr().out
    assert f"| {row} |" in printed
    assert "of one run" in printed
    assert (tmp_path / f"{name}.png").exists()


def test_every_row_of_images_names_its_archives():
    for name in IMAGES:
        for experiment in ENTRIES[name].table().experiments:
            assert experiment.archives
            assert experiment.paper


def test_seeds_of_images_and_their_options(fake, tmp_path, monkeypatch, capsys):
    words = ["--rows", "ANIL", "--minutes", "1e-9", "--tasks", "3", "--seeds", "2"]
    typed(monkeypatch, tmp_path, "omniglot_5w1s", *words, "--statistics", "support")
    printed = capsys.readouterr().out
    assert "| 20 |" in printed  # iterations, between two looks at the clock
    assert "95 % over 2 seeds" in printed
    assert "support |" in printed
    with pytest.raises(SystemExit):
        typed(monkeypatch, tmp_path, "lee_table_1", "--minutes", "3")
    assert "--minutes must be left out: lee_table_1 is not of images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        typed(monkeypatch, tmp_path, "lee_table_1", "--seeds", "0")
    assert "--seeds must be positive; got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        typed(monkeypatch, tmp_path, "lee_table_1", "--rows", "MTnet")
    assert "no cell like ['MTnet'] | '*'; there are ['MAML | 5-shot'" in capsys.readouterr().err


def test_the_list_has_all_documents_and_every_command(monkeypatch, tmp_path, capsys):
    typed(monkeypatch, tmp_path, "list")
    printed = capsys.readouterr().out
    assert all(f"**{document}**" in printed for document in DOCUMENTS)
    assert all(f"benchmarks.papers {name}`" in printed for name in ENTRIES)
    assert "| Tables 1 to 3 | notation and settings |  | nothing to run |" in printed


@pytest.mark.parametrize(
    ("settings", "cells", "expected"),
    [
        ({"fraction": 1.0}, ["1", "2"], "run in full"),
        ({}, ["1", "2"], "run in full"),
        ({}, ["1", ""], "run at a fraction"),
        ({"fraction": 0.5}, ["1", "2"], "run at a fraction"),
        ({"minutes": 2.0}, ["1", "2"], "run at a fraction"),
    ],
)
def test_the_state_is_that_of_the_records(settings, cells, expected, tmp_path):
    table = Table("", [Experiment("MAML", {"a": "", "b": ""}, lambda _: {})])
    entry = Entry("name", "Table 1", "", lambda: table, ("one",))
    assert entry.state(tmp_path) == "not run"
    Record("", settings, ["", "a", "b"], [["MAML", *cells]]).write(tmp_path / "one.json")
    assert entry.state(tmp_path) == expected


def test_a_row_is_one_curve_where_every_point_is_an_experiment(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(_plot.plt, "close", lambda: drawn.append(_plot.plt.gca()))
    rows = [Experiment(row, {x: ""}, lambda _: {}) for row in ("MAML", "TURTLE") for x in "12"]
    found = [(each, {next(iter(each.paper)): over_runs([1.0, 2.0])}) for each in rows]
    _plot.plot(Table("", rows, x="tasks"), found, tmp_path / "curves.png")
    lines = drawn[0].containers
    assert [line.get_label() for line in lines] == ["MAML", "TURTLE"]
    assert all(line.lines[0].get_xdata().tolist() == [1, 2] for line in lines)


def test_data_that_cannot_be_shipped_and_gpus_are_needed(tmp_path):
    states = {name: ENTRIES[name].state(tmp_path) for name in ("huisman_table_8", "sun_omniglot")}
    assert states["huisman_table_8"] == "needs CUB_200_2011, which cannot be shipped"
    assert states["sun_omniglot"] == "needs a GPU"


def test_an_interrupted_experiment_goes_on(tmp_path):
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    tasks, seen = data.Sinusoid(5, num_query=5), []

    def run_it(settings):
        def stop(progress):
            seen.append(progress.iteration)
            if len(seen) == 2:
                signal.raise_signal(signal.SIGINT)

        options = {"num_iterations": 4, "meta_batch_size": 1, "callbacks": [stop]}
        train(lambda _: learner, tasks, settings, **options)
        return {"loss": Summary(torch.ones(2))}

    experiment = Experiment("row", {"loss": ""}, run_it)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "row.json", experiment, Settings(2, "cpu", compile=False))
    run(tmp_path / "row.json", experiment, Settings(2, "cpu", compile=False))
    assert seen == [1, 2, 3, 4]


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
        ([0.5], "0.50 +- 0.01", "0.5 (0.50 +- 0.01)"),  # of one run nothing can be said
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
    again = read(json.loads(json.dumps(entries_of(summary))))
    assert (again.mean, again.interval) == (pytest.approx(summary.mean), summary.interval)
    assert again.ci95 == pytest.approx(summary.ci95)
    assert read(entries_of(over_runs([0.1, 0.2]))).tasks is None


def test_every_seed_has_test_tasks_of_its_own_unless_the_paper_shares_them():
    learner = outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)
    replicas, tasks = outer.Replicas([learner, learner]), data.Sinusoid(5, num_query=5)
    own = score(replicas, tasks, num_tasks=40)
    assert own.tasks is None
    assert own.values[0] != own.values[1]
    shared = score(replicas, tasks, num_tasks=40, task_seeds=[7, 7])
    assert len(shared.tasks.values) == 40
    assert shared.ci95 == pytest.approx(shared.tasks.ci95)


def test_a_baseline_without_training_is_the_same_again(short):
    first, again = (
        sine_turtle.baseline(Settings(2, "cpu"), "TrainFromScratch", 5)["5-shot"].values
        for _ in range(2)
    )
    assert first.equal(again)
    assert first[0] != first[1]


def test_a_best_validation_is_scored_as_it_was():
    def build(seed):
        return outer.MAML(models.mlp(1, [4], 1), F.mse_loss, inner.SGD(0.01), num_steps=1)

    tasks, settings = data.Sinusoid(5, num_query=5), Settings(2, "cpu", compile=False)
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
