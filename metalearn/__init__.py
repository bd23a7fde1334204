"""Gradient-based meta-learning for PyTorch as one small algebra."""

from metalearn import (
    analysis,
    baselines,
    data,
    functional,
    inner,
    models,
    outer,
    rl,
    search,
    testing,
    training,
    types,
)
from metalearn._allocator import keep_large_blocks
from metalearn._results import Evaluation
from metalearn._seeds import over_seeds
from metalearn._summary import Summaries, Summary
from metalearn.evaluation import evaluate
from metalearn.training import History, fit

__version__ = "0.1.0"

__all__ = [
    "data",
    "inner",
    "outer",
    "models",
    "baselines",
    "rl",
    "functional",
    "types",
    "testing",
    "analysis",
    "search",
    "training",
    "fit",
    "History",
    "evaluate",
    "Evaluation",
    "Summary",
    "Summaries",
    "over_seeds",
    "keep_large_blocks",
]
