"""What `benchmarks.images` runs: every method trains and is judged on tasks of the right size."""

import argparse

import pytest
import torch

from benchmarks.images.__main__ import Run, show
from benchmarks.images._depths import OMNIGLOT
from benchmarks.images._methods import METHODS
from benchmarks.images._problems import Problem
from metalearn import data

IMAGES = data.ClassImages(torch.randint(256, (6, 13, 8, 8), generator=torch.manual_seed(0)).byte())
SPLITS = {"train": IMAGES, "val": IMAGES, "test": IMAGES}
ARGUMENTS = argparse.Namespace(
    **{
        "budget": 1e-9,
        "looks": 0,
        "tasks": 2,
        "seed": 0,
        "device": "cpu",
        "threads": 1,
        "statistics": "support",
    },
    **{"compile": False, "cuda_graph": False, "meta_batch_size": 4, "filters": None},
)


def run(method):
    problem = Problem(
        lambda: SPLITS, {"n_way": 3, "k_shot": 1, "num_query": 2}, {"in_channels": 1}, METHODS
    )
    problem.model.update(num_filters=2, image_size=8)
    return Run(problem, method, SPLITS, ARGUMENTS)()


@pytest.mark.parametrize(
    "name", [*METHODS, "CNN, 1 layers", "CNN + KFC, 2 layers", "CNN + Meta-Curvature, 2 layers"]
)
def test_methods(name, monkeypatch):
    monkeypatch.setattr(Run, "train", one_step)
    result = run({**METHODS, **OMNIGLOT}[name])
    assert list(result["accuracies"]) == ["test", "val"]
    assert result["statistics"] == "support"


def one_step(self, learner, batches, size):
    loss = learner(batches.sample(size))
    loss.backward()
    assert loss.isfinite()
    return {"seconds": 0, "iterations": 1, "curve": []}


def test_training_stops_when_the_time_is_over():
    result = run(METHODS["ANIL"])
    assert result["iterations"] == 20


def test_what_has_not_been_run_says_so(capsys):
    result = {
        "seconds": 60,
        "iterations": 20,
        "statistics": "support",
        "accuracies": {"test": [0.9, 0.01]},
    }
    show("omniglot_5w1s", {"MAML": result})
    printed = capsys.readouterr().out
    assert "| MAML | 90.00 +- 1.00 % | 98.7 +- 0.4 | 20 | 60 s | support |" in printed
    assert "| FOMAML | not run | 98.3 +- 0.5 | | | |" in printed
