"""Cells, networks of them, and the search."""

import torch
from hypothesis import strategies as st

from metalearn import data, search
from tests.properties.entry import Entry
from tests.properties.strategies import COUNTS, POSITIVE, SEEDS, STATISTICS, class_images

NAMES = st.sampled_from(list(search.OPERATORS))
INPUTS = st.integers(-2, -1)
BLOCK = {"left_operator": NAMES, "left": INPUTS, "right_operator": NAMES, "right": INPUTS}
CELLS = st.lists(st.builds(search.Block, **BLOCK), min_size=1, max_size=2).map(search.Cell)
NETWORKS = st.builds(search.Network, CELLS, st.integers(1, 2), st.integers(1, 3))
IMAGES = {
    "network": NETWORKS,
    "in_channels": COUNTS,
    "num_classes": COUNTS,
    "image_size": st.integers(4, 9),
}
OPERATORS = st.lists(NAMES, min_size=1, max_size=3)
TASKS = st.builds(lambda classes: data.EpisodeSampler(classes, 2, 2, 1), class_images())


def blocks(cell):
    return len(cell.blocks)


def tried(result, /, **_):
    assert result.best.score == 2


def logits(model, /, in_channels, num_classes, image_size, **_):
    result = model(torch.rand(2, in_channels, image_size, image_size))
    assert result.shape == (2, num_classes)
    assert result.isfinite().all()


def same(value, /, **_):
    assert type(value).from_json(value.to_json()) == value
    assert "(-1)" in str(value) or "(-2)" in str(value)


ENTRIES = {
    "Block": Entry(search.Block, BLOCK),
    "Cell": Entry(
        search.Cell,
        {"blocks": st.lists(st.builds(search.Block, **BLOCK), min_size=1, max_size=3)},
        same,
        {"blocks": st.sampled_from([[search.Block("identity", 0, "identity", -1)], [None], "xy"])},
    ),
    "Cell.from_json": Entry(
        search.Cell.from_json,
        {"text": CELLS.map(search.Cell.to_json)},
        same,
        {
            "text": st.sampled_from(
                ["[]", '{"blocks": 1}', '{"blocks": []}', '{"blocks": [{}]}', "[" * 10_000]
            )
        },
    ),
    "Network": Entry(
        search.Network, {"cell": CELLS, "num_cells": COUNTS, "num_filters": COUNTS}, same
    ),
    "Network.from_json": Entry(
        search.Network.from_json,
        {"text": NETWORKS.map(search.Network.to_json)},
        same,
        {"text": st.sampled_from(['{"cell": 1, "num_cells": 1, "num_filters": 1}', "{}"])},
    ),
    "build": Entry(search.build, IMAGES | {"batch_statistics": STATISTICS}, logits),
    "cost": Entry(search.cost, IMAGES),
    "RidgeEnsemble": Entry(
        search.RidgeEnsemble,
        {"num_members": COUNTS, "penalty": POSITIVE, "optimism": st.floats(-1, 1)},
    ),
    "LSTMRanker": Entry(
        search.LSTMRanker,
        {"num_members": COUNTS, "hidden_size": COUNTS, "num_steps": COUNTS, "lr": POSITIVE},
    ),
    "ProgressiveSearch": Entry(
        search.ProgressiveSearch,
        {
            "num_blocks": COUNTS,
            "num_candidates": COUNTS,
            "num_rounds": COUNTS,
            "num_first": st.none() | COUNTS,
            "operators": OPERATORS,
            "surrogate": st.just(search.RidgeEnsemble()),
            "allowed": st.sampled_from([None, lambda cell: True]),
            "seed": SEEDS,
        },
        wrong={"operators": st.sampled_from([["identiti"], [1], [], {}])},
        functions=frozenset({"allowed"}),
    ),
    "ProgressiveSearch.run": Entry(
        search.ProgressiveSearch.run,
        {"score": st.just(blocks), "executor": st.none(), "log": st.none()},
        tried,
        given={"self": st.just(search.ProgressiveSearch(2, 2, operators=("identity",)))},
        functions=frozenset({"score"}),
    ),
    "ReptileScore": Entry(
        search.ReptileScore,
        {
            "train": TASKS,
            "validation": TASKS,
            "num_tasks": COUNTS,
            "inner_lr": POSITIVE,
            "seed": SEEDS,
        },
    ),
}

EXCLUDED = {
    "Cost": "made by cost",
    "Trial": "made by a search",
    "SearchResult": "made by a search",
    "Surrogate": "abstract",
}
