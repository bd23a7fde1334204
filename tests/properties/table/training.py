"""What watches a run."""

from hypothesis import strategies as st

from metalearn import training
from tests.properties.entry import Entry
from tests.properties.strategies import COUNTS

ENTRIES = {
    "CSVLog": Entry(training.CSVLog, {"path": st.just("log.csv"), "every": COUNTS}),
    "EarlyStopping": Entry(
        training.EarlyStopping, {"patience": COUNTS, "min_improvement": st.floats(0, 3)}
    ),
    "TensorBoardLog": Entry(training.TensorBoardLog, {"folder": st.just("logs"), "every": COUNTS}),
}

EXCLUDED = {
    "fit": "in the table of the package itself",
    "History": "made by fit",
    "Progress": "made by fit",
}
