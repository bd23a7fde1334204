from dataclasses import dataclass
from functools import partial

import pytest

from metalearn.search import Block, Cell, Trial
from metalearn.search._log import Log

RESULTS = [("identity", 0.1, ""), ("conv_3x3", None, "é"), ("max_pool_3x3", 2.0, "")]
TRIALS = [
    Trial(Cell([Block("conv_3x3", -1, name, -2)]), score, error) for name, score, error in RESULTS
]


def score(cell):
    return 0.0


@pytest.fixture
def path(tmp_path):
    log = Log(tmp_path / "folder" / "log.jsonl", score)
    for trial in TRIALS:
        log.add(trial)
    return tmp_path / "folder" / "log.jsonl"


def test_trials_are_read_back(path):
    assert list(Log(path, score).trials.values()) == TRIALS


@pytest.mark.parametrize(
    "damage", [lambda last: last[:-1], lambda last: last[:5], lambda last: b"\xff\0" + last]
)
def test_a_damaged_last_line_is_dropped_from_the_file_too(path, damage):
    *rest, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rest, damage(last)]))
    assert list(Log(path, score).trials.values()) == TRIALS[:2]
    assert path.read_bytes() == b"".join(rest)
    Log(path, score).add(TRIALS[2])
    assert list(Log(path, score).trials.values()) == TRIALS


def test_a_file_without_a_line_is_begun(path):
    path.write_text("")
    assert Log(path, score).trials == {}
    assert Log(path, score).trials == {}


BAD = [
    (lambda text: "iteration,loss\n1,2\n", "must begin with"),
    (lambda text: text.replace("search 1", "search 0"), "must begin with"),
    (
        lambda text: text.replace("test_log.score", "test_log.other"),
        "Pass another path, or delete the file",
    ),
    (lambda text: text.replace('"identity"', '"identiti"'), "line 2 of"),
]


@pytest.mark.parametrize(("damage", "message"), BAD)
def test_a_foreign_or_damaged_log_is_refused_and_left_alone(path, damage, message):
    damaged = damage(path.read_text())
    path.write_text(damaged)
    with pytest.raises(ValueError, match=message):
        Log(path, score)
    assert path.read_text() == damaged


@dataclass(frozen=True)
class Scored:
    seed: int

    def __call__(self, cell):
        return 0.0


@pytest.mark.parametrize("other", [Scored(1), partial(Scored(0), k=1), score])
def test_a_log_of_other_settings_is_refused(other, tmp_path):
    Log(tmp_path / "log.jsonl", Scored(0)).add(TRIALS[0])
    assert Log(tmp_path / "log.jsonl", Scored(0)).trials
    with pytest.raises(ValueError, match="must begin with"):
        Log(tmp_path / "log.jsonl", other)
