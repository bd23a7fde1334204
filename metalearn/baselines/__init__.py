"""Baselines: training from scratch, transfer of features, and heads in closed form."""

from metalearn.baselines._cosine_head import CosineHead
from metalearn.baselines._logistic_regression import LogisticRegression
from metalearn.baselines._methods import (
    CentroidFinetuning,
    Finetuning,
    Pretraining,
    TrainFromScratch,
)
from metalearn.baselines._nearest_neighbour import NearestNeighbour
from metalearn.baselines._proto_net import ProtoNet
from metalearn.baselines._ridge_regression import RidgeRegression
from metalearn.baselines._transfer import Transfer

__all__ = [
    "TrainFromScratch",
    "Pretraining",
    "Finetuning",
    "CentroidFinetuning",
    "NearestNeighbour",
    "ProtoNet",
    "RidgeRegression",
    "LogisticRegression",
    "CosineHead",
    "Transfer",
]
