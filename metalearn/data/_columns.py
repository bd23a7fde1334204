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


def read_columns(what: str, table: Any, names: Any) -> Any:
    """Return columns as tensors: of a name `[n, ...]`, of a list of names `[n, len(names)]`.

    A mapping gives a dict of either. Floating columns get the default dtype, and a list's columns
    the one that holds them all.
    """
    if isinstance(names, Mapping):
        return {key: read_columns(what, table, each) for key, each in names.items()}
    if isinstance(names, str):
        return _tensor(f"column {names!r}", _column(what, table, names))
    if not (isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)):
        fix = f"Write {what}='price', {what}=['age', 'income'], or a dict of such."
        raise mistyped(f"Grouped's {what}", "name columns", brief(names), fix)
    columns = [read_columns(what, table, name) for name in names]
    if wide := [name for name, column in zip(names, columns, strict=True) if column.dim() > 1]:
        fix = f"Write {what}={wide[0]!r}, or a dict of such."
        raise invalid(f"columns of Grouped's {what}", "have one number an example", wide, fix)
    dtype = reduce(torch.promote_types, [column.dtype for column in columns])
    return torch.stack([column.to(dtype) for column in columns], 1)


def read_groups(what: str, table: Any, name: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the groups' names in ascending order, every row's group, and the groups' sizes."""
    if not isinstance(name, str):
        raise mistyped(f"Grouped's {what}", "name a column", brief(name), f"Write {what}='client'.")
    column = _column(what, table, name)
    keys = column.numpy(force=True) if isinstance(column, Tensor) else np.asarray(column)
    try:
        values, rows, counts = np.unique(keys, return_inverse=True, return_counts=True)
        is_missing = bool((values != values).any())  # NaN
    except TypeError as error:
        raise _unnamed(name, str(error)) from error
    if is_missing or keys.ndim != 1:
        raise _unnamed(name, "missing ones" if is_missing else f"shape {keys.shape}")
    return [str(value) for value in values], rows, counts


def check_lengths(trees: Any, length: int) -> None:
    """Raise unless all columns have as many rows."""
    if bad := {len(leaf) for leaf in tree_leaves(trees)} - {length}:
        raise invalid("columns of Grouped", f"have {length} rows, as the groups do", sorted(bad))


def _unnamed(name: str, got: str) -> ValueError:
    fix = "Leave out their rows: table.dropna(subset=[...]), say."
    return invalid(f"column {name!r}", "have one name of a group a row, of one kind", got, fix)


def _column(what: str, table: Any, name: str) -> Any:
    columns = list(getattr(table, "column_names", table))
    if name not in columns:
        condition = f"be one of the columns {columns}"
        raise invalid(f"Grouped's {what}", condition, repr(name), did_you_mean(name, columns))
    return table[name]


def _tensor(what: str, column: Any) -> Tensor:
    """Return a column of numbers, or of arrays of one shape, as a tensor."""
    if not isinstance(column, Tensor):
        array = np.asarray(column)
        if array.dtype == object:
            array = _stacked(what, array)
        if array.dtype.kind not in "biuf":
            fix = "Encode it first: table['x'].astype('category').cat.codes, say."
            raise mistyped(what, "hold numbers", f"{array.dtype}", fix)
        column = torch.tensor(array)
    if not column.dim():
        raise invalid(what, "have an entry a row", "one number")
    if column.is_floating_point():
        if missing := int(column.isnan().sum()):
            fix = "Leave out or fill these rows: table.dropna(), say."
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
