import numpy as np
import pytest
import torch

from metalearn.data._columns import read_columns, read_groups
from tests.outer.cases import assert_refused

pd = pytest.importorskip("pandas", reason="pip install .[integrations]")
datasets = pytest.importorskip("datasets", reason="pip install .[integrations]")
TABLE = pd.DataFrame(
    {
        "client": ["b", "a", "b"],
        "int": [1, 2, 3],
        "float": [0.5, 1.5, 2.5],
        "bool": [True, False, True],
        "nullable": pd.array([1, 2, 3], dtype="Int64"),
        "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "image": [np.zeros((2, 2), np.uint8)] * 3,
        "ragged": [[1.0], [1.0, 2.0], [3.0]],
        "word": ["x", "y", "z"],
        "missing": [1.0, np.nan, 2.0],
        "unnamed": ["a", None, "b"],
        "unknown": pd.array([1, None, 3], dtype="Int64"),
        "mixed": ["a", 1, "b"],
        "number": [3, 10, 3],
    }
)
DATA_SET = datasets.Dataset.from_dict(
    {"a": [1.0, None, 2.0], "b": [1.0, float("nan"), 2.0], "c": ["x", "y", "z"]}
)


def test_a_name_is_a_column():
    assert torch.equal(read_columns("x", TABLE, "int"), torch.tensor([1, 2, 3]))
    assert torch.equal(read_columns("x", TABLE, "float"), torch.tensor([0.5, 1.5, 2.5]))
    assert torch.equal(read_columns("x", TABLE, "nullable"), torch.tensor([1, 2, 3]))
    assert read_columns("x", TABLE, "vector").tolist() == TABLE["vector"].tolist()
    image = read_columns("x", TABLE, "image")
    assert (image.shape, image.dtype) == ((3, 2, 2), torch.uint8)


def test_a_list_of_names_is_a_vector_of_numbers():
    x = read_columns("x", TABLE, ["int", "float", "bool"])
    assert torch.equal(x, torch.tensor([[1.0, 0.5, 1.0], [2.0, 1.5, 0.0], [3.0, 2.5, 1.0]]))
    assert read_columns("x", TABLE, ["int", "nullable"]).dtype == torch.float32
    assert read_columns("y", TABLE, ["int", "nullable"]).dtype == torch.int64
    assert read_columns("x", TABLE, ("int",)).shape == (3, 1)


def test_integers_are_what_losses_and_embeddings_take():
    codes = TABLE["word"].astype("category").cat.codes
    assert codes.dtype == np.int8
    for what in ("x", "y"):
        assert torch.equal(read_columns(what, {"a": codes}, "a"), torch.tensor([0, 1, 2]))
    for name in ("bool", "image"):
        assert read_columns("y", TABLE, name).dtype == torch.int64


def test_a_dict_is_a_dict():
    x = read_columns("x", TABLE, {"left": ["int"], "right": "vector"})
    assert {name: tuple(leaf.shape) for name, leaf in x.items()} == {
        "left": (3, 1),
        "right": (3, 2),
    }


def test_floats_have_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert read_columns("x", TABLE, "float").dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert read_columns("x", {"a": torch.ones(2).double()}, "a").dtype == torch.float32


def test_nothing_of_the_table_is_shared():
    array = np.ones(3)
    read_columns("x", {"a": array}, "a").zero_()
    assert array.tolist() == [1, 1, 1]


def test_groups_are_in_ascending_order():
    names, rows, counts = read_groups("by", TABLE, "client")
    assert (names, rows.tolist(), counts.tolist()) == (["a", "b"], [1, 0, 1], [1, 2])
    names, rows, counts = read_groups("by", TABLE, "number")
    assert (names, rows.tolist(), counts.tolist()) == (["3", "10"], [0, 1, 0], [2, 1])


BAD = {
    "no such column": (
        lambda: read_columns("x", TABLE, "imt"),
        ValueError,
        "Did you mean 'int'?",
    ),
    "no name": (lambda: read_columns("x", TABLE, 3), TypeError, "Grouped's x must name columns"),
    "no names": (lambda: read_columns("x", TABLE, []), TypeError, "Write x='price'"),
    "words": (
        lambda: read_columns("y", TABLE, "word"),
        TypeError,
        "Encode it first: table['word'].astype('category').cat.codes, say.",
    ),
    "arrays of other shapes": (
        lambda: read_columns("x", TABLE, "ragged"),
        ValueError,
        "column 'ragged' must hold numbers, or arrays of one shape",
    ),
    "vectors in a vector": (
        lambda: read_columns("x", TABLE, ["int", "vector"]),
        ValueError,
        "columns of Grouped's x must have one number an example; got ['vector']",
    ),
    "missing values": (
        lambda: read_columns("x", TABLE, "missing"),
        ValueError,
        "column 'missing' must have no missing values; got 1 of them",
    ),
    "missing groups": (
        lambda: read_groups("by", TABLE, "unnamed"),
        ValueError,
        "column 'unnamed' must have one name of a group a row",
    ),
    "groups of missing numbers": (
        lambda: read_groups("by", TABLE, "missing"),
        ValueError,
        "got missing ones. Leave out their rows: table.dropna(subset=['missing']).",
    ),
    "missing words": (
        lambda: read_columns("y", TABLE, "unnamed"),
        ValueError,
        "column 'unnamed' must have no missing values; got 1 of them. "
        "Leave out their rows: table.dropna(subset=['unnamed']).",
    ),
    "missing integers": (
        lambda: read_columns("y", TABLE, "unknown"),
        ValueError,
        "column 'unknown' must have no missing values; got 1 of them.",
    ),
    "missing numbers of a data set": (
        lambda: read_columns("x", DATA_SET, "a"),
        ValueError,
        "Leave out their rows: table.filter(lambda row: row['a'] is not None).",
    ),
    "missing lists of a dict": (
        lambda: read_columns("x", {"a": [[1.0, 2.0], None]}, "a"),
        ValueError,
        "must have no missing values; got 1 of them. Leave out their rows, of every column.",
    ),
    "NaN in a data set": (
        lambda: read_columns("x", DATA_SET, "b"),
        ValueError,
        "Leave out their rows: table.filter(lambda row: row['b'] == row['b']).",
    ),
    "words of a data set": (
        lambda: read_columns("y", DATA_SET, "c"),
        TypeError,
        "Encode it first: table.class_encode_column('c'), say.",
    ),
    "words of a dict": (
        lambda: read_columns("y", {"c": ["x", "y"]}, "c"),
        TypeError,
        "Encode it first: np.unique(table['c'], return_inverse=True)[1], say.",
    ),
    "missing groups of a data set": (
        lambda: read_groups("by", DATA_SET, "a"),
        ValueError,
        "got missing ones. Leave out their rows: table.filter(lambda row: row['a'] is not None).",
    ),
    "groups of two kinds": (
        lambda: read_groups("by", TABLE, "mixed"),
        ValueError,
        "Make them strings: table['mixed'].astype(str).",
    ),
    "groups of two kinds of a dict": (
        lambda: read_groups("by", {"a": np.array(["a", 1], dtype=object)}, "a"),
        ValueError,
        "Make them strings: [str(name) for name in table['a']].",
    ),
    "lists of other lengths of a dict": (
        lambda: read_columns("x", {"a": [[1.0], [1.0, 2.0]]}, "a"),
        ValueError,
        "column 'a' must hold numbers, or arrays of one shape",
    ),
    "groups of vectors": (
        lambda: read_groups("by", {"a": np.ones((2, 2))}, "a"),
        ValueError,
        "got shape (2, 2)",
    ),
    "groups by two columns": (
        lambda: read_groups("by", TABLE, ["client", "int"]),
        TypeError,
        "Grouped's by must name a column",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
