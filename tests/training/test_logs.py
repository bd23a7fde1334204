import csv

import pytest
import torch

from metalearn import data, fit, outer, training
from tests.cases import sine_episodes, sine_learner

TASKS = data.Sinusoid(k_shot=5, num_query=5)


def train(callbacks, num_iterations=6, **options):
    learner = sine_learner()
    options = {"validate": lambda learner: 2.5, "validate_every": 4, "progress": False, **options}
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    return fit(learner, sine_episodes(), optimizer, num_iterations, callbacks=callbacks, **options)


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_callbacks_see_every_iteration():
    seen = []

    def look(progress):
        seen.append(
            (
                progress.iteration,
                len(progress.learner.diagnostics["finite"]),
                progress.history.recent_loss(1),
            )
        )

    history = train([look])
    assert [iteration for iteration, _, _ in seen] == list(range(1, 7))
    assert {num_tasks for _, num_tasks, _ in seen} == {3}
    assert [loss for _, _, loss in seen] == history.loss.tolist()


def test_a_table(tmp_path):
    path = tmp_path / "runs" / "log.csv"
    history = train([training.CSVLog(path, every=3)])
    table = rows(path)
    assert [row["iteration"] for row in table] == ["3", "4", "6"]
    assert [row["score"] for row in table] == ["", "2.5", "2.5"]
    assert float(table[0]["loss"]) == pytest.approx(history.loss[:3].mean().item())
    assert {row["num_diverged"] for row in table} == {"0"}


def test_a_table_goes_on_with_the_run(tmp_path):
    """What was written after the last checkpoint is dropped; a new run starts a new table."""

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.iteration == 5:
            raise StopError

    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    train([training.CSVLog(whole, every=1)])
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 3}
    with pytest.raises(StopError):
        train([training.CSVLog(broken, every=1), stop], **options)
    assert len(rows(broken)) == 5
    train([training.CSVLog(broken, every=1)], **options)
    assert broken.read_text() == whole.read_text()
    train([training.CSVLog(broken, every=1)], num_iterations=2)
    assert len(rows(broken)) == 2


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train([training.TensorBoardLog(tmp_path, every=2)])
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert events.Scalars("loss")[0].value == pytest.approx(history.loss[:2].mean().item())
    assert [event.step for event in events.Scalars("score")] == [4, 6]


def test_diverged_tasks_are_counted(tmp_path):
    episodes = sine_episodes()
    episodes.query.y[:2, 0] = torch.nan
    learner = sine_learner(estimator=outer.SkipDiverged(outer.Unrolled()))
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    with pytest.warns(
        RuntimeWarning,
        match=r"2 of 4 meta-losses were not finite, .* 2\. History.num_diverged counts",
    ):
        history = fit(
            learner,
            [sine_episodes(), episodes],
            optimizer,
            4,
            callbacks=[training.CSVLog(tmp_path / "log.csv", every=2)],
            progress=False,
        )
    assert history.num_diverged.tolist() == [0, 2, 0, 2]
    assert [row["num_diverged"] for row in rows(tmp_path / "log.csv")] == ["2", "2"]
    assert all(param.isfinite().all() for param in learner.parameters())


@pytest.mark.parametrize("kind", [training.CSVLog, training.TensorBoardLog])
def test_bad_input(kind, tmp_path):
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        kind(tmp_path / "log", every=0)


def test_a_path_is_needed():
    with pytest.raises(TypeError, match="path must be a path; got 3"):
        training.CSVLog(3)


def test_callbacks_are_a_list_of_functions():
    with pytest.raises(
        TypeError,
        match=r"callbacks must be a list of functions of the progress; got .* Write callb",
    ):
        train(training.CSVLog("log.csv"))


def test_a_log_that_is_used_again_starts_anew(tmp_path):
    path = tmp_path / "log.csv"
    log = training.CSVLog(path, every=3)
    for _ in range(2):
        train([log], validate=None)
        assert [row["iteration"] for row in rows(path)] == ["3", "6"]


def test_half_a_row_is_dropped(tmp_path):
    path, folder = tmp_path / "log.csv", tmp_path / "runs"
    options = {"validate": None, "checkpoint_dir": folder, "checkpoint_every": 3}
    train([training.CSVLog(path, every=1)], 3, **options)
    with path.open("a") as stream:
        stream.write("1")
    train([training.CSVLog(path, every=1)], 5, **options)
    assert [row["iteration"] for row in rows(path)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "a line without an end"])
def test_another_table_is_refused(text, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"CSVLog's file must have columns \['iteration'.*; got columns"
    ):
        train([training.CSVLog(path)])
    assert path.read_text() == text
