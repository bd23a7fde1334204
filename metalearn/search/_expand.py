"""Expansion of cells by one block."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement, product

from metalearn.search._cell import FIRST_INPUT, Block, Cell


def blocks(operators: Sequence[str], num_blocks: int) -> Iterator[Block]:
    """Yield each block once that can follow `num_blocks` blocks."""
    sides = sorted(product(operators, range(FIRST_INPUT, num_blocks)))
    for left, right in combinations_with_replacement(sides, 2):
        yield Block(*left, *right)


def smallest(operators: Sequence[str]) -> list[Cell]:
    """Return all cells of one block."""
    return [Cell([block]) for block in blocks(operators, 0)]


def expanded(cells: Iterable[Cell], operators: Sequence[str]) -> list[Cell]:
    """Return each expansion of these cells by one block, once."""
    found = {
        Cell([*cell.blocks, block]).canonical(): None
        for cell in cells
        for block in blocks(operators, len(cell.blocks))
    }
    return list(found)
