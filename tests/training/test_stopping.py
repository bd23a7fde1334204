import csv
import math

import pytest
import torch

from metalearn import fit, outer, training
from tests.cases import sine_episodes, sine_learner

SCORES = [5.0, 3.0, 4.0, 3.5, 2.0, 2.5, 2.4, 2.3, 1.0, 1.0]
"""Of the iterations from 1."""


def train(callbacks, num_iterations=10, scores=SCORES, learner=None, **options):
    learner, scores = learner or sine_learner(), iter(scores)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    options = {
        "validate": lambda learner: next(scores),
        "validate_every": 1,
        "progress": False,
        **options,
    }
    return fit(learner, sine_episodes(), optimizer, num_iterations, callbacks=callbacks, **options)


@pytest.mark.parametrize(
    ("arguments", "scores", "num_iterations"),
    [
        ({"patience": 1}, SCORES, 3),
        ({"patience": 2}, SCORES, 4),
        ({"patience": 3}, SCORES, 8),
        ({"patience": 4}, SCORES, 10),
        ({"patience": 2, "min_improvement": 1.9}, SCORES, 4),
        ({"patience": 3, "min_improvement": 0.9}, SCORES, 8),
        (
            {"patience": 2, "min_improvement": 0.15},
            [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
            10,
        ),
        ({"patience": 2}, [math.nan, 1.0, math.nan, math.inf], 4),
        ({"patience": 2}, [math.nan, math.nan], 2),
    ],
)
def test_stops_after_as_many_validations_without_improvement(arguments, scores, num_iterations):
    stopping, history = training.EarlyStopping(**arguments), training.History()
    ends = []
    for iteration, score in enumerate(scores, 1):
        history.scores[iteration] = score
        ends.append(stopping(training.Progress(iteration, history, None, None)))
    assert (ends.index(True) + 1 if True in ends else len(ends)) == num_iterations


def test_validations_are_counted_not_iterations():
    history = train(
        [training.EarlyStopping(2)],
        num_iterations=20,
        scores=[3.0, 4.0, 5.0, 6.0],
        validate_every=2,
    )
    assert list(history.scores) == [2, 4, 6]
    assert history.best_iteration == 2
    assert history.loss.shape == (6,)


def test_the_mean_of_replicas_that_have_a_score():
    learners = outer.Replicas([sine_learner(num_steps=1) for _ in range(3)])
    scores = [4.0, 3.0, math.nan, 3.0, 3.5, math.nan, 2.0, 5.0, math.nan]
    history = train([training.EarlyStopping(1)], learner=learners, scores=scores)
    assert list(history.scores) == [1, 2, 3]


@pytest.mark.parametrize("ending", [True, torch.tensor(True), torch.tensor(2.0) > 1])
def test_a_callback_that_returns_true_ends_the_run(ending, tmp_path):
    seen = []

    def stop(progress):
        return progress.iteration == 3 and ending

    options = {"validate_every": 2, "checkpoint_dir": tmp_path, "checkpoint_every": 100}
    history = train([stop, lambda progress: seen.append(progress.iteration)], **options)
    assert seen == [1, 2, 3]
    assert history.loss.shape == history.num_diverged.shape == (3,)
    assert list(history.scores) == [2, 3]  # the last iteration is always validated
    assert torch.load(tmp_path / "checkpoint.pt")["iteration"] == 3


def test_other_values_end_nothing():
    values = [1, 0.3, "yes", torch.tensor(0.3), torch.tensor(False), False, None]
    assert len(train([lambda progress: values[progress.iteration - 1]], num_iterations=7).loss) == 7


def test_an_ended_run_ends_again_at_once(tmp_path):
    log, again = tmp_path / "log.csv", sine_learner()
    callbacks = [training.EarlyStopping(2)]
    train(
        [*callbacks, training.CSVLog(log, every=1)],
        checkpoint_dir=tmp_path,
        learner=(learner := sine_learner()),
    )
    written = log.read_text()
    history = train(
        [*callbacks, training.CSVLog(log, every=1)], checkpoint_dir=tmp_path, learner=again
    )
    assert len(history.loss) == 4
    assert log.read_text() == written
    assert [row["iteration"] for row in csv.DictReader(written.splitlines())] == [
        "1",
        "2",
        "3",
        "4",
    ]
    for ours, theirs in zip(again.parameters(), learner.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("callbacks", [[], [training.EarlyStopping(3)]])
def test_an_ended_run_goes_on_without_what_ended_it(callbacks, tmp_path):
    whole = train(callbacks)
    train([training.EarlyStopping(2)], checkpoint_dir=tmp_path)
    history = train(callbacks, scores=SCORES[4:], checkpoint_dir=tmp_path)
    assert history.scores == whole.scores
    assert torch.equal(history.loss, whole.loss)


def test_a_run_that_was_killed_stops_where_an_unbroken_one_does(tmp_path):
    stopping = training.EarlyStopping(3)

    def kill(progress):
        if progress.iteration == 7:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train([stopping, kill], checkpoint_dir=tmp_path, checkpoint_every=6)
    history = train([stopping], scores=SCORES[6:], checkpoint_dir=tmp_path)
    assert history.scores == train([stopping]).scores
    assert len(history.loss) == 8


def test_bad_input():
    with pytest.raises(
        ValueError,
        match=r"patience must be at least 1; got 0. Write training.EarlyStopping\(patience=10",
    ):
        training.EarlyStopping(0)
    with pytest.raises(ValueError, match="min_improvement must be at least 0; got -1"):
        training.EarlyStopping(1, min_improvement=-1)
    with pytest.raises(
        ValueError,
        match="EarlyStopping must have a validation score; got validate=None. Pass validate",
    ):
        train([training.EarlyStopping(3)], validate=None)
