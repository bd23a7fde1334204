"""Architecture search for meta-learning: cells grow block by block, guided by a surrogate."""

from metalearn.search._build import Cost, build, cost
from metalearn.search._cell import Block, Cell, Network
from metalearn.search._log import Trial
from metalearn.search._lstm import LSTMRanker
from metalearn.search._operators import OPERATORS
from metalearn.search._progressive import ProgressiveSearch, SearchResult
from metalearn.search._score import ReptileScore
from metalearn.search._surrogate import RidgeEnsemble, Surrogate

__all__ = [
    "Block",
    "Cell",
    "Network",
    "OPERATORS",
    "build",
    "Cost",
    "cost",
    "ProgressiveSearch",
    "SearchResult",
    "Trial",
    "ReptileScore",
    "Surrogate",
    "RidgeEnsemble",
    "LSTMRanker",
]
