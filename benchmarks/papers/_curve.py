"""Scores while a learner trains."""

import json
from collections.abc import Callable

from benchmarks._records import replace
from benchmarks.papers._experiment import Cells, Settings
from benchmarks.papers._results import entries_of, read
from metalearn import Summary

POINTS = 10


def curve(
    settings: Settings,
    num_iterations: int,
    train_to: Callable[[int], None],
    score: Callable[[], Summary],
) -> Cells:
    """Train in parts, and return the score after each, by percentage of the iterations.

    Args:
        settings: With the folder of the training's checkpoints.
        num_iterations: Of the whole training.
        train_to: Trains from the last checkpoint to a number of iterations.
        score: Returns the score then.
    """
    assert settings.checkpoints is not None  # which `_results.run` says
    path = settings.checkpoints / "curve.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for index in range(1, POINTS + 1):
        column = f"{100 * index // POINTS} %"
        if column not in known:
            train_to(max(round(num_iterations * index / POINTS), 1))
            known[column] = entries_of(score())
            replace(path, json.dumps(known))
    return {column: read(entries) for column, entries in known.items()}
