"""Gradient-based meta-learning for PyTorch as one small algebra."""

from metalearn import baselines, data, functional, inner, models, outer, testing, types
from metalearn._allocator import keep_large_blocks
from metalearn.evaluation import Evaluation, Summary, evaluate
from metalearn.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "data",
    "inner",
    "outer",
    "models",
    "baselines",
    "functional",
    "types",
    "testing",
    "fit",
    "History",
    "evaluate",
    "Evaluation",
    "Summary",
    "keep_large_blocks",
]
