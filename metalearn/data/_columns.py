"""Columns of a table as tensors: of a pandas table, a Hugging Face data set, or a mapping."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import did_you_mean, invalid, mistyped
from metalearn._tree import tree_leaves
from metalearn.data._table_fixes import fix_of


def read_columns(what: str, table: Any, names: Any) -> Any:
    """Return columns as tensors: of a name `[n, ...]`, of a list of names `[n, len(names)]`.

    A mapping gives a dict of either. Floating columns get the default dtype, and integers and bools
    int64, unless they are arrays of inputs, such as images. A list's columns get the dtype that
    holds them all, and those of inputs a floating one.
    """
    if isinstance(names, Mapping):
        return {key: read_columns(what, table, each) for key, each in names.items()}
    if isinstance(names, str):
        column = _tensor(table, names, _column(what, table, names))
        is_array_of_inputs = what == "x" and column.dim() > 1
        return column if column.is_floating_point() or is_array_of_inputs else column.long()
    if not (isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)):
        fix = f"Write {what}='price', {what}=['age', 'income'], or a dict of such."
        raise mistyped(f"Grouped's {what}", "name columns", brief(names), fix)
    columns = [read_columns(what, table, name) for name in names]
    if wide := [name for name, column in zip(names, columns, strict=True) if column.dim() > 1]:
        fix = f"Write {what}={wide[0]!r}, or a dict of such."
        raise invalid(f"columns of Grouped's {what}", "have one number an example", wide, fix)
    least = torch.get_default_dtype() if what == "x" else columns[0].dtype
    dtype = reduce(torch.promote_types, [column.dtype for column in columns], least)
    return torch.stack([column.to(dtype) for column in columns], 1)


def read_groups(what: str, table: Any, name: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the groups' names in ascending order, every row's group, and the groups' sizes."""
    if not isinstance(name, str):
        raise mistyped(f"Grouped's {what}", "name a column", brief(name), f"Write {what}='client'.")
    keys = _array(_column(what, table, name))
    condition = "have one name of a group a row"
    if keys.ndim != 1:
        raise invalid(f"column {name!r}", condition, f"shape {keys.shape}")
    if _missing(keys):
        fix = fix_of("NaN" if keys.dtype.kind == "f" else "missing values", table, name)
        raise invalid(f"column {name!r}", condition, "missing ones", fix)
    try:
        values, rows, counts = np.unique(keys, return_inverse=True, return_counts=True)
    except TypeError as error:
        fix = fix_of("several kinds", table, name)
        raise invalid(f"column {name!r}", f"{condition}, of one kind", error, fix) from error
    return [str(value) for value in values], rows, counts


def check_lengths(trees: Any, length: int) -> None:
    """Raise unless all columns have as many rows."""
    if bad := {len(leaf) for leaf in tree_leaves(trees)} - {length}:
        raise invalid("columns of Grouped", f"have {length} rows, as the groups do", sorted(bad))


def _column(what: str, table: Any, name: str) -> Any:
    columns = list(getattr(table, "column_names", table))
    if name not in columns:
        condition = f"be one of the columns {columns}"
        raise invalid(f"Grouped's {what}", condition, repr(name), did_you_mean(name, columns))
    return table[name]


def _array(column: Any) -> np.ndarray:
    """Return a column as an array, of objects where lists in it differ in length."""
    if isinstance(column, Tensor):
        return column.numpy(force=True)
    try:
        return np.asarray(column)
    except ValueError:
        return np.fromiter(column, dtype=object)


def _missing(array: np.ndarray) -> int:
    """Return how many values are missing: None, NaN, or what pandas writes for them."""
    if array.dtype == object:
        return sum(
            each is None or (isinstance(each, float) and each != each) or _is_na(each)
            for each in array.flat
        )
    return int((array != array).sum()) if array.dtype.kind in "fcmM" else 0


def _is_na(value: Any) -> bool:
    return type(value).__name__ in ("NAType", "NaTType")


def _tensor(table: Any, name: str, column: Any) -> Tensor:
    """Return a column of numbers, or of arrays of one shape, as a tensor."""
    what = f"column {name!r}"
    if not isinstance(column, Tensor):
        array = _array(column)
        if array.dtype == object and (missing := _missing(array)):
            fix = fix_of("missing values", table, name)
            raise invalid(what, "have no missing values", f"{missing} of them", fix)
        if array.dtype == object:
            array = _stacked(what, array)
        if array.dtype.kind not in "biuf":
            raise mistyped(what, "hold numbers", f"{array.dtype}", fix_of("words", table, name))
        column = torch.tensor(array)
    if not column.dim():
        raise invalid(what, "have an entry a row", "one number")
    if column.is_floating_point():
        if missing := int(column.isnan().sum()):
            fix = fix_of("NaN", table, name)
            raise invalid(what, "have no missing values", f"{missing} of them", fix)
        return column.to(torch.get_default_dtype())
    return column


def _stacked(what: str, array: np.ndarray) -> np.ndarray:
    """Return an array of arrays as one."""
    try:
        return np.stack([np.asarray(each) for each in array])
    except ValueError as error:
        fix = "Pad or crop them to one shape first."
        raise invalid(what, "hold numbers, or arrays of one shape", str(error), fix) from error
