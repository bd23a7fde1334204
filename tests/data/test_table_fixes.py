"""The fixes, followed."""

import collections
import re

import numpy as np
import pytest

from metalearn.data._table_fixes import FIXES, fix_of

pd = pytest.importorskip("pandas", reason="pip install .[integrations]")
datasets = pytest.importorskip("datasets", reason="pip install .[integrations]")

COLUMNS = {
    "missing values": ["a", None, "b"],
    "NaN": [1.0, float("nan"), 2.0],
    "a single row": ["a", "b", "a"],
    "words": ["b", "a", "b"],
    "several kinds": [1, 2, 3],
}
FIXED = {
    "missing values": ["a", "b"],
    "NaN": [1.0, 2.0],
    "a single row": ["a", "a"],
    "words": [1, 0, 1],
    "several kinds": ["1", "2", "3"],
}
TABLES = {"pandas": pd.DataFrame, "Hugging Face": datasets.Dataset.from_dict, "mapping": dict}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("fault", FIXES)
def test_is_of_the_kind_of_table(fault, kind):
    table = TABLES[kind]({"it": COLUMNS[fault]})
    fix = fix_of(fault, table, "it")
    assert fix == FIXES[fault][kind].format(name="it")
    if "every column" in fix:
        return
    code = re.sub(r"(, say|, with counts = .*)?\.$", "", fix.partition(": ")[2])
    names = {"np": np, "datasets": datasets, "counts": collections.Counter(table["it"])}
    fixed = eval(code, names | {"table": table})
    column = fixed["it"] if type(fixed) is type(table) else fixed
    assert list(column) == FIXED[fault]
