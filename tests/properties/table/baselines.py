"""The baselines: each must give every task a finite loss, and what it learns a finite gradient."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st

from metalearn import baselines, functional, models
from metalearn.types import Batch, Episode
from tests.properties.entry import Entry
from tests.properties.strategies import COUNTS, PLAIN_RULES, POSITIVE

OPTIONS = {
    "criterion": st.sampled_from([F.cross_entropy, functional.cross_entropy]),
    "rule": PLAIN_RULES,
    "num_steps": st.integers(1, 3),
    "estimator": st.builds(baselines.Transfer, COUNTS, COUNTS),
}
BODIES = st.builds(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 4)))
CRITERION = frozenset({"criterion"})


def episodes(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 6, 2, generator=generator), torch.tensor([[0, 0, 1, 1, 2, 2]] * 2)
    return Episode(Batch(x, y), Batch(x + 0.1, y))


def classifies(learner, /, **_):
    assert learner(episodes()).isfinite()
    assert learner.adapt(episodes().support).loss(episodes().query).isfinite().all()


ENTRIES = {
    "TrainFromScratch": Entry(
        baselines.TrainFromScratch,
        {"model": st.builds(lambda: models.mlp(2, [3], 3)), **OPTIONS},
        classifies,
        functions=CRITERION,
    ),
    "Pretraining": Entry(
        baselines.Pretraining,
        {"model": st.builds(lambda: models.mlp(2, [3], 3)), **OPTIONS},
        classifies,
        functions=CRITERION,
    ),
    "Finetuning": Entry(
        baselines.Finetuning,
        {"body": BODIES, "head": st.builds(nn.Linear, st.just(4), st.just(3)), **OPTIONS},
        classifies,
        functions=CRITERION,
    ),
    "CentroidFinetuning": Entry(
        baselines.CentroidFinetuning,
        {"body": BODIES, "num_features": st.just(4), "num_classes": st.integers(3, 5), **OPTIONS},
        classifies,
        functions=CRITERION,
    ),
    "ProtoNet": Entry(
        baselines.ProtoNet,
        {"body": BODIES, "num_features": st.just(4), "num_classes": st.integers(3, 5)},
        classifies,
    ),
    "RidgeRegression": Entry(
        baselines.RidgeRegression,
        {
            "body": BODIES,
            "num_features": st.just(4),
            "num_outputs": st.integers(3, 5),
            "criterion": OPTIONS["criterion"],
            "penalty": POSITIVE,
        },
        classifies,
        functions=CRITERION,
    ),
    "LogisticRegression": Entry(
        baselines.LogisticRegression,
        {
            "body": BODIES,
            "num_features": st.just(4),
            "num_classes": st.integers(3, 5),
            "num_newton_steps": st.integers(1, 3),
            "penalty": POSITIVE,
        },
        classifies,
    ),
    "NearestNeighbour": Entry(
        baselines.NearestNeighbour,
        {
            "body": BODIES,
            "num_features": st.just(4),
            "num_classes": st.integers(3, 5),
            "num_support": st.just(6),
        },
        classifies,
    ),
    "CosineHead": Entry(
        baselines.CosineHead,
        {"in_features": st.just(4), "num_classes": COUNTS, "scale": POSITIVE},
        lambda head, /, in_features, num_classes, **_: head(torch.rand(5, in_features)),
    ),
    "Transfer": Entry(
        baselines.Transfer,
        {"batch_size": COUNTS, "select_every": COUNTS},
        lambda made, /, **_: classifies(
            baselines.TrainFromScratch(models.mlp(2, [3], 3), num_steps=2, estimator=made)
        ),
    ),
}

EXCLUDED: dict[str, str] = {}
