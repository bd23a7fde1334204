"""The training loop, its history and its callbacks."""

from metalearn.training._fit import fit
from metalearn.training._history import History
from metalearn.training._logs import CSVLog, Progress, TensorBoardLog
from metalearn.training._stopping import EarlyStopping

__all__ = ["fit", "History", "Progress", "CSVLog", "TensorBoardLog", "EarlyStopping"]
