import json
import math
import random
import statistics
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import replace
from multiprocessing import get_context

import pytest

from metalearn.search import Cell, ProgressiveSearch, RidgeEnsemble, Surrogate
from tests.search.cases import OPERATORS, SPACE, Structured

SEARCH = ProgressiveSearch(num_blocks=2, num_candidates=10, num_rounds=3, operators=OPERATORS)


def test_it_finds_the_best_cell_in_a_third_of_the_evaluations_and_beats_random_search():
    ranks, ours, theirs, correlations = [], [], [], []
    for seed in range(10):
        score = Structured(seed)
        result = ProgressiveSearch(2, 10, 3, operators=OPERATORS, seed=seed).run(score)
        assert len(result.trials) <= len(SPACE) / 3
        ranks.append(sum(score(cell) > result.best.score for cell in SPACE))
        ours.append(result.best.score)
        theirs.append(max(map(score, random.Random(seed).sample(SPACE, len(result.trials)))))
        correlations += result.rank_correlations
    assert ranks == [0] * 10
    assert all(one >= other for one, other in zip(ours, theirs, strict=True))
    assert statistics.mean(ours) > statistics.mean(theirs)
    assert len(correlations) == 30
    assert statistics.mean(correlations) > 0.2


@pytest.mark.parametrize("kept", [0, 1, 25, 40])
def test_a_search_that_was_killed_goes_on(tmp_path, kept):
    log, calls = tmp_path / "log.jsonl", []
    whole = SEARCH.run(_counted(calls), log=log)
    assert len(calls) == len(whole.trials)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: 1 + kept]) + lines[1 + kept][:20])  # killed while it wrote
    calls.clear()
    again = SEARCH.run(_counted(calls), log=log)
    assert len(calls) == len(whole.trials) - kept
    assert [(trial.cell, trial.score) for trial in again.trials] == [
        (t.cell, t.score) for t in whole.trials
    ]
    assert again.rank_correlations == whole.rank_correlations
    assert [json.loads(line)["score"] for line in log.read_text().splitlines()[1:]] == [
        t.score for t in whole.trials
    ]


def _counted(calls):
    def score(cell):
        calls.append(cell)
        return Structured()(cell)

    return score


def test_workers_change_nothing():
    one = SEARCH.run(Structured())
    assert (
        repr(one)
        == f"SearchResult({len(one.trials)} trials, 0 failed, best score {one.best.score:.4g})"
    )
    with ThreadPoolExecutor(2) as executor:
        two = SEARCH.run(Structured(), executor=executor)
    assert [trial.cell for trial in one.trials] == [trial.cell for trial in two.trials]
    assert one.rank_correlations == two.rank_correlations


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Dask imports
def test_an_executor_of_dask_with_two_workers():
    distributed = pytest.importorskip("distributed", reason="pip install .[integrations]")
    cluster = distributed.LocalCluster(
        2, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        two = SEARCH.run(Structured(), executor=client.get_executor())
    one = SEARCH.run(Structured())
    assert [trial.cell for trial in one.trials] == [trial.cell for trial in two.trials]
    assert one.rank_correlations == two.rank_correlations


def test_failures_are_recorded_and_the_search_goes_on(tmp_path):
    score = Structured(failing="sep_conv_3x3(-1) + sep_conv_3x3")
    result = SEARCH.run(score, log=tmp_path / "log.jsonl")
    failed = [trial for trial in result.trials if trial.score is None]
    assert failed
    assert {trial.error for trial in failed} == {f"MemoryError: no room for {score.failing}"}
    assert result.best.score > 3
    mended = SEARCH.run(Structured(), log=tmp_path / "log.jsonl")  # failures are tried again
    assert all(trial.score is not None for trial in mended.trials)
    with pytest.raises(
        RuntimeError, match=r"score must work for some cell; got MemoryError: no room for \("
    ):
        SEARCH.run(Structured(failing="("))
    with pytest.raises(RuntimeError, match=r"ValueError: score must be finite; got nan"):
        SEARCH.run(lambda cell: math.nan)


def _never(cell):
    raise AssertionError("all is in the log")


def _of(score, path):
    """Say in a log that another score wrote it."""
    head = {"format": "metalearn search 1", "score": f"{score.__module__}.{score.__qualname__}"}
    path.write_text("\n".join([json.dumps(head), *path.read_text().splitlines()[1:], ""]))
    return path


def test_what_is_not_allowed_is_not_tried():
    search = ProgressiveSearch(
        2, 5, operators=OPERATORS, num_first=4, allowed=lambda cell: "identity" not in str(cell)
    )
    result = search.run(Structured())
    assert [len(trial.cell.blocks) for trial in result.trials] == [1] * 4 + [2] * 5
    assert not any("identity" in str(trial.cell) for trial in result.trials)
    with pytest.raises(ValueError, match="cells of one block must be allowed in part"):
        ProgressiveSearch(allowed=lambda cell: False).run(Structured())


def test_an_exhausted_space_ends_the_search():
    result = ProgressiveSearch(2, 30, 3, operators=("identity",)).run(lambda cell: len(cell.blocks))
    assert len(result.trials) == len({trial.cell for trial in result.trials}) < 3 + 30


def test_a_process_and_a_score_that_cannot_be_sent_to_it(tmp_path):
    calls, log = [], tmp_path / "log.jsonl"
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        with pytest.raises(
            TypeError, match=r"must send the score to its workers; .* at the top level of a module"
        ):
            SEARCH.run(_counted(calls), executor=executor, log=log)
        assert not calls
        assert not log.exists()
        two = SEARCH.run(Structured(), executor=executor)
    assert [trial.cell for trial in two.trials] == [
        trial.cell for trial in SEARCH.run(Structured()).trials
    ]


class Breaking(Executor):
    """One whose worker dies at the third job."""

    count = 0

    def submit(self, function, *arguments):
        self.count += 1
        future = Future()
        if self.count < 3:
            future.set_result(function(*arguments))
        else:
            future.set_exception(BrokenExecutor("a worker was killed"))
        return future


def test_a_broken_executor(tmp_path):
    with pytest.raises(
        RuntimeError,
        match=r"executor must keep its workers; .* with a new executor and the same log",
    ):
        SEARCH.run(Structured(), executor=Breaking(), log=tmp_path / "log.jsonl")
    assert len(SEARCH.run(Structured(), log=tmp_path / "log.jsonl").trials) == 51


class Wrong(Surrogate):
    """One that predicts a single number for all cells."""

    def fit(self, cells, scores, generator):
        return lambda others: scores.mean()


BAD = [
    (
        lambda: replace(SEARCH, surrogate=Wrong()).run(Structured()),
        ValueError,
        "surrogate's predictions must be a tensor [735]; got shape ()",
    ),
    (lambda: ProgressiveSearch(0), ValueError, "num_blocks must be at least 1"),
    (lambda: ProgressiveSearch(operators=["conv_3x2"]), ValueError, "Did you mean 'conv_3x3'?"),
    (
        lambda: ProgressiveSearch(operators="conv_3x3"),
        TypeError,
        "operators must be a list of names",
    ),
    (lambda: ProgressiveSearch(operators=()), ValueError, "operators must be at least one"),
    (lambda: ProgressiveSearch(surrogate=RidgeEnsemble), TypeError, "Write RidgeEnsemble(...)"),
    (lambda: ProgressiveSearch(allowed=3), TypeError, "allowed must be a function of a cell"),
    (lambda: SEARCH.run(3), TypeError, "score must be a function of a cell"),
    (lambda: SEARCH.run(Structured(), executor=2), TypeError, "Pass ProcessPoolExecutor(2)"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_the_best_of_negative_scores():
    result = ProgressiveSearch(1, operators=OPERATORS).run(lambda cell: -1.0 - len(str(cell)))
    assert isinstance(result.best.cell, Cell)
    assert result.best.score == max(trial.score for trial in result.trials)
