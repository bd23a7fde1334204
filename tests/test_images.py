"""What trains and judges methods for images: every method, on tasks of the right size."""

import pytest
import torch

from benchmarks.images import _thesis
from benchmarks.images._cells import run
from benchmarks.images._depths import OMNIGLOT
from benchmarks.images._methods import METHODS
from benchmarks.images._problems import PROBLEMS, Problem
from benchmarks.images._run import Run
from benchmarks.papers._experiment import Settings
from metalearn import data, fit

IMAGES = data.ClassImages(torch.randint(256, (6, 21, 8, 8), generator=torch.manual_seed(0)).byte())
SPLITS = {"train": IMAGES, "val": IMAGES, "test": IMAGES}
SETTINGS = Settings(1, "cpu", compile=False, minutes=1e-9, statistics="support", tasks=2)
PROBLEM = Problem(
    lambda: SPLITS,
    {"n_way": 3, "k_shot": 1, "num_query": 2},
    {"in_channels": 1, "num_filters": 2, "image_size": 8},
    METHODS,
)
THESIS = {f"{row}, thesis": method for row, method in _thesis.methods(5).items()}
ALL = {**METHODS, **OMNIGLOT, **THESIS}
DEPTHS = ["CNN, 1 layers", "CNN + KFC, 2 layers", "CNN + Meta-Curvature, 2 layers"]


@pytest.mark.parametrize("name", [*METHODS, *DEPTHS, *THESIS])
def test_methods(name, monkeypatch):
    monkeypatch.setattr(Run, "for_minutes", one_step)
    cells = run(SETTINGS, PROBLEM, ALL[name])
    assert list(cells) == ["test", "val", "iterations", "time", "batch statistics"]
    assert cells["batch statistics"] == "support"
    assert 0 <= cells["test"].mean <= 100


def one_step(self, learner, batches, size):
    loss = learner(batches.sample(size))
    loss.backward()
    assert loss.isfinite()
    return {"seconds": 0, "iterations": 1}


def test_training_stops_when_the_time_is_over():
    assert run(SETTINGS, PROBLEM, METHODS["ANIL"])["iterations"] == "20"


@pytest.mark.parametrize("name", ["MAML", "finetuning"])  # on tasks, and on mini-batches
def test_the_best_validation_is_judged(name):
    settings = Settings(1, "cpu", fraction=1e-4, compile=False, tasks=3)
    scores = []

    class Counted(Run):
        def error(self, learner):
            scores.append((super().error(learner), {**learner.state_dict()}))
            return scores[-1][0]

    problem = Problem(PROBLEM.images, PROBLEM.sizes, PROBLEM.model, METHODS, validate_every=8)
    learner, found = Counted(problem, METHODS[name], SPLITS, settings).trained()
    assert found["iterations"] == 6
    assert len(scores) == 3
    best = min(scores, key=lambda pair: pair[0])[1]
    assert all(torch.equal(best[name], tensor) for name, tensor in learner.state_dict().items())


def test_curves_are_of_the_learner_as_it_is_and_not_of_the_best(tmp_path):
    settings = Settings(1, "cpu", compile=False, tasks=3, checkpoints=tmp_path)
    one = Run(PROBLEM, METHODS["MAML"], SPLITS, settings)
    learner, batches, size = one.begun()
    fit(learner, batches, one.optimizer(learner), 5, meta_batch_size=size, progress=False)
    one.trained_to(2)
    last = one.trained_to(5).state_dict()
    assert all(torch.equal(last[name], tensor) for name, tensor in learner.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layers", "count"),
    [
        ("omniglot_10w5s", 4, 112_586),  # Arnold et al. (2019), appendix A.1.2
        ("omniglot_10w5s", 2, 38_474),
        ("cifar_fs_10w3s", 4, 29_226),
        ("cifar_fs_10w3s", 2, 10_602),
        ("mini_imagenet_10w1s", 4, 36_906),
        ("mini_imagenet_10w1s", 2, 18_282),
    ],
)
def test_networks_have_as_many_parameters_as_the_papers(name, layers, count):
    problem = PROBLEMS[name]
    network = problem.network(problem.methods[f"CNN, {layers} layers"], 10, "transductive")
    assert sum(param.numel() for param in network.parameters()) == count
