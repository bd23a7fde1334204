"""Training, evaluation and results."""

from tempfile import TemporaryDirectory

import torch
from hypothesis import strategies as st

import metalearn
from metalearn import Evaluation, Summary, evaluate, fit
from tests.cases import sine_learner
from tests.properties.entry import Entry
from tests.properties.strategies import COUNTS, GENERATORS, damaged, regressions, sines
from tests.properties.table.analysis import METRICS, WRONG

LEARNERS = st.builds(sine_learner, num_steps=st.just(1))
EPISODES = regressions(num_tasks=st.just(3))
SCHEDULERS = st.sampled_from([None, "cosine"])


def trained(learner, batches, optimizer, scheduler, num_iterations, **options):
    if isinstance(optimizer, str) and isinstance(learner, metalearn.outer.MetaLearner):
        optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
    if scheduler == "cosine" and isinstance(optimizer, torch.optim.Optimizer):
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    return fit(learner, batches, optimizer, num_iterations, scheduler=scheduler, **options)


def recorded(history, /, num_iterations, **_):
    assert history.loss.shape == (num_iterations,)


def judged(evaluation, /, num_tasks, **_):
    assert all(summary.values.shape == (num_tasks,) for summary in evaluation.values())


def evaluation(values=(1.0, 2.0), fingerprint=7, task_names=None):
    summaries = {"loss": Summary(torch.tensor(values))}
    return Evaluation(summaries, len(values), 5, "none", fingerprint, task_names)


EVALUATIONS = st.lists(st.floats(-5, 5), min_size=2, max_size=2).map(evaluation)


def saved(path):
    with TemporaryDirectory() as root:
        place = f"{root}/{path}" if isinstance(path, str) else path
        evaluation().save(place)
        assert Evaluation.load(place)["loss"].mean == 1.5


ENTRIES = {
    "fit": Entry(
        trained,
        {
            "learner": LEARNERS,
            "batches": st.one_of(sines(), EPISODES, EPISODES.map(lambda episodes: [episodes])),
            "optimizer": st.just("of the learner"),
            "num_iterations": st.integers(1, 2),
            "meta_batch_size": st.just(3),
            "scheduler": SCHEDULERS,
            "max_grad_norm": st.sampled_from([None, 1.0]),
            "validate": st.sampled_from([None, lambda learner: 1.0]),
            "validate_every": COUNTS,
            "num_validation_tasks": COUNTS,
            "num_validation_steps": st.none(),
            "keep_best": COUNTS,
            "checkpoint_dir": st.none(),
            "checkpoint_every": COUNTS,
            "callbacks": st.sampled_from([(), [lambda progress: None]]),
            "generator": GENERATORS,
            "progress": st.just(False),
        },
        recorded,
        {
            "batches": damaged(EPISODES),
            "validate": st.sampled_from([lambda learner: None, lambda learner: "x"]),
            "num_validation_steps": st.sampled_from([-1, 10]),
        },
        functions=frozenset({"validate"}),
        always=False,
    ),
    "evaluate": Entry(
        evaluate,
        {
            "learner": st.one_of(LEARNERS, st.lists(LEARNERS, min_size=1, max_size=2)),
            "episodes": EPISODES,
            "num_tasks": st.integers(1, 3),
            "num_steps": st.sampled_from([None, 0, 2]),
            "metrics": METRICS,
            "task_names": st.none(),
            "generator": GENERATORS,
        },
        judged,
        WRONG,
        functions=frozenset({"metrics"}),
    ),
    "over_seeds": Entry(
        metalearn.over_seeds,
        {"evaluations": st.lists(EVALUATIONS, min_size=1, max_size=3)},
        lambda summaries, /, **_: str(summaries),
    ),
    "Evaluation.compare": Entry(
        lambda one, other: one.compare(other),
        {"other": st.builds(evaluation)},
        lambda summaries, /, **_: summaries["loss"].mean == 0,
        {"other": st.builds(evaluation, fingerprint=st.sampled_from([None, 8]))},
        {"one": st.builds(evaluation)},
    ),
    "Evaluation.by_task": Entry(
        lambda of, name: of.by_task(name),
        {"name": st.just("loss")},
        lambda by_task, /, **_: by_task == {"a": 1.0, "b": 2.0},
        {"name": st.sampled_from(["accuracy", ""])},
        {"of": st.builds(evaluation, task_names=st.just(("a", "b")))},
    ),
    "Evaluation.save": Entry(saved, {"path": st.sampled_from(["a.json", "b/c.json"])}),
}

EXCLUDED = {
    "History": "made by fit",
    "Summary": "made by evaluate and over_seeds",
    "Summaries": "made by evaluate and over_seeds",
    "keep_large_blocks": "takes nothing, and changes the process's allocator",
}
