"""Models from the papers, and functions that prepare any module for meta-learning."""

from metalearn.models._batch_norm import BatchNorm, FrozenNorm, PerStepNorm, SupportNorm
from metalearn.models._batch_statistics import (
    batch_statistics,
    running_statistics,
    use_batch_statistics,
)
from metalearn.models._collapse import collapse
from metalearn.models._conv4 import conv4
from metalearn.models._init import init_
from metalearn.models._mlp import linear_network, mlp
from metalearn.models._resnet12 import resnet12
from metalearn.models._split_parameters import split_parameters

__all__ = [
    "mlp",
    "linear_network",
    "conv4",
    "resnet12",
    "init_",
    "collapse",
    "split_parameters",
    "use_batch_statistics",
    "batch_statistics",
    "running_statistics",
    "BatchNorm",
    "SupportNorm",
    "PerStepNorm",
    "FrozenNorm",
]
