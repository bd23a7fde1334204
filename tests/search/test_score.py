import pickle

import pytest
import torch

from metalearn import data
from metalearn.search import Block, Cell, Network, ProgressiveSearch, ReptileScore, build

CELL = Cell([Block("conv_3x3", -1, "identity", -2)])


@pytest.fixture(scope="module")
def tasks():
    """Classes of one shade each, and noise."""
    noise = torch.randint(40, (6, 6, 1, 8, 8), generator=torch.manual_seed(0))
    return data.EpisodeSampler(
        data.ClassImages((noise + 40 * torch.arange(6).reshape(6, 1, 1, 1, 1)).byte()), 2, 2, 2
    )


@pytest.fixture(scope="module")
def score(tasks):
    small = {
        "num_cells": 2,
        "num_filters": 4,
        "num_iterations": 3,
        "meta_batch_size": 2,
        "num_tasks": 20,
    }
    return ReptileScore(tasks, tasks, num_steps=2, num_steps_judged=5, inner_lr=0.02, **small)


def test_it_is_an_accuracy_that_the_seed_decides(score):
    state = torch.get_rng_state()
    accuracy = score(CELL)
    assert 0.6 < accuracy <= 1
    assert pickle.loads(pickle.dumps(score))(CELL) == accuracy
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_of_ones_own_is_judged_alike(score):
    with torch.random.fork_rng():
        torch.manual_seed(score.seed)
        model = build(Network(CELL, score.num_cells, score.num_filters), 1, 2, image_size=8)
    assert score.judge(model) == score(CELL)


def test_a_search_by_it(score, tmp_path):
    search = ProgressiveSearch(
        2, num_candidates=1, num_first=2, operators=("identity", "max_pool_3x3")
    )
    result = search.run(score, log=tmp_path / "log.jsonl")
    assert [trial.error for trial in result.trials] == ["", "", ""]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("train", None, TypeError),
        ("num_iterations", 0, ValueError),
        ("inner_lr", -1, ValueError),
        ("device", "x", ValueError),
    ],
)
def test_bad_input(tasks, name, value, error):
    with pytest.raises(error, match=rf"{name} must"):
        ReptileScore(**{"train": tasks, "validation": tasks, name: value})
