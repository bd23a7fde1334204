"""What to do about a column, as one writes it for the kind of table that has it."""

from typing import Any

FIXES = {
    "missing values": {
        "pandas": "Leave out their rows: table.dropna(subset=[{name!r}]).",
        "Hugging Face": "Leave out their rows: "
        "table.filter(lambda row: row[{name!r}] is not None).",
        "mapping": "Leave out their rows, of every column.",
    },
    "NaN": {
        "pandas": "Leave out their rows: table.dropna(subset=[{name!r}]).",
        "Hugging Face": "Leave out their rows: "
        "table.filter(lambda row: row[{name!r}] == row[{name!r}]).",
        "mapping": "Leave out their rows, of every column.",
    },
    "a single row": {
        "pandas": "Leave them out: table.groupby({name!r}).filter(lambda rows: len(rows) > 1).",
        "Hugging Face": "Leave them out: table.filter(lambda row: counts[row[{name!r}]] > 1), "
        "with counts = collections.Counter(table[{name!r}]).",
        "mapping": "Leave them out of every column.",
    },
    "words": {
        "pandas": "Encode it first: table[{name!r}].astype('category').cat.codes, say.",
        "Hugging Face": "Encode it first: table.class_encode_column({name!r}), say.",
        "mapping": "Encode it first: np.unique(table[{name!r}], return_inverse=True)[1], say.",
    },
    "several kinds": {
        "pandas": "Make them strings: table[{name!r}].astype(str).",
        "Hugging Face": "Make them strings: table.cast_column({name!r}, datasets.Value('string')).",
        "mapping": "Make them strings: [str(name) for name in table[{name!r}]].",
    },
}


def fix_of(fault: str, table: Any, name: str) -> str:
    """Return the fix of a fault of `FIXES` in a column."""
    is_pandas, is_hugging_face = hasattr(table, "dropna"), hasattr(table, "column_names")
    kind = "pandas" if is_pandas else "Hugging Face" if is_hugging_face else "mapping"
    return FIXES[fault][kind].format(name=name)
