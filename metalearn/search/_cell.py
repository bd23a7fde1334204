"""Blocks, cells and networks as plain data, with a readable form and a JSON form."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Self

from metalearn._checks import as_list, check_choice, check_count, check_kind, invalid
from metalearn._fields import Check, Checked, Count
from metalearn.search._operators import OPERATORS

FIRST_INPUT = -2
"""The cell before the previous one; -1 is the previous one, and blocks count from 0."""
EXAMPLE = "Block('conv_3x3', -1, 'identity', -2)"
FIX = "-1 is the previous cell, -2 the one before it, 0 the cell's first block."


@dataclass(frozen=True, order=True)
class Block(Checked):
    """The sum of two operators, each applied to an input.

    Args:
        left_operator: A name in `search.OPERATORS`.
        left: Its input: the output of the cell before the previous one (-2), of the previous cell
            (-1), or of this cell's block b (b >= 0).
        right_operator: The second operator.
        right: Its input.

    Raises:
        TypeError: If an input is not an int.
        ValueError: If an operator is unknown, or an input is below -2.

    >>> print(Block("sep_conv_3x3", -1, "identity", -2))
    sep_conv_3x3(-1) + identity(-2)
    """

    left_operator: Annotated[str, Check(check_choice, OPERATORS)]
    left: Annotated[int, Check(check_count, minimum=FIRST_INPUT), FIX]
    right_operator: Annotated[str, Check(check_choice, OPERATORS)]
    right: Annotated[int, Check(check_count, minimum=FIRST_INPUT), FIX]

    def __str__(self) -> str:
        return f"{self.left_operator}({self.left}) + {self.right_operator}({self.right})"

    @property
    def inputs(self) -> tuple[int, int]:
        """The two inputs."""
        return self.left, self.right

    def renamed(self, names: Mapping[int, int]) -> "Block":
        """Return the block with renamed inputs and its lesser side on the left."""
        left = self.left_operator, names.get(self.left, self.left)
        right = self.right_operator, names.get(self.right, self.right)
        return Block(*min(left, right), *max(left, right))


@dataclass(frozen=True)
class Cell:
    """Blocks that build on each other; the output concatenates all blocks that no other uses.

    Args:
        blocks: At least one; block b may refer to the cell's inputs and to blocks 0 to b - 1.

    Raises:
        TypeError: If they are not blocks.
        ValueError: If there are none, or one refers to itself or a later block.

    >>> first = Block("conv_3x3", -1, "identity", -2)
    >>> cell = Cell([first, Block("max_pool_3x3", 0, "identity", -1)])
    >>> print(cell)
    0: conv_3x3(-1) + identity(-2); 1: max_pool_3x3(0) + identity(-1)
    >>> cell.outputs, Cell.from_json(cell.to_json()) == cell
    ((1,), True)
    """

    blocks: tuple[Block, ...]

    def __init__(self, blocks: Iterable[Block]) -> None:
        fix = f"Write Cell([{EXAMPLE}])."
        given = as_list("Cell's blocks", blocks, "be a list of blocks", fix=fix)
        object.__setattr__(self, "blocks", tuple(given))
        if not self.blocks:
            raise invalid("Cell's blocks", "be at least one", "none", fix)
        for index, block in enumerate(self.blocks):
            check_kind(f"block {index}", block, Block, "a Block", EXAMPLE)
            if max(block.inputs) >= index:
                before = f", 0 to {index - 1} the blocks before" if index else ""
                fix = f"-2 and -1 are the cell's inputs{before}."
                condition = f"refer to inputs from -2 to {index - 1}"
                raise invalid(f"block {index}", condition, str(block), fix)

    def __str__(self) -> str:
        return "; ".join(f"{index}: {block}" for index, block in enumerate(self.blocks))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The blocks that no other block uses."""
        used = {name for block in self.blocks for name in block.inputs}
        return tuple(index for index in range(len(self.blocks)) if index not in used)

    def canonical(self) -> "Cell":
        """Return the cell with its blocks in the canonical one of several equivalent orders.

        >>> first = Block("identity", -1, "identity", -2)
        >>> second = Block("conv_3x3", -1, "conv_3x3", -1)
        >>> Cell([first, second]).canonical() == Cell([second, first]).canonical()
        True
        """
        return Cell(self._from({}))

    def _from(self, names: dict[int, int]) -> list[Block]:
        """Return the least topological order of the blocks without a new name."""
        ready = {
            index: block.renamed(names)
            for index, block in enumerate(self.blocks)
            if index not in names and all(name < 0 or name in names for name in block.inputs)
        }
        if not ready:
            return []
        # equal blocks may differ in what refers to them
        least = min(ready.values())
        chosen = [index for index, block in ready.items() if block == least]
        return [least, *min(self._from({**names, index: len(names)}) for index in chosen)]

    def to_json(self) -> str:
        """Return the cell as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the cell that `to_json` wrote.

        Raises:
            TypeError: As for `Cell`.
            ValueError: As for `Cell`, or if the text is not a cell in JSON.
        """
        return cls(**_blocks(_read(cls, text)))


@dataclass(frozen=True)
class Network(Checked):
    """A convolution and a sequence of equal cells, with 2x2 max-pooling between them.

    Args:
        cell: The cell that is repeated.
        num_cells: Number of cells, at least 1.
        num_filters: Channels within a cell, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a count is below 1.

    >>> print(Network(Cell([Block("conv_3x3", -1, "identity", -2)]), num_cells=3, num_filters=16))
    3 cells of 16 filters; 0: conv_3x3(-1) + identity(-2)
    """

    cell: Annotated[Cell, Check(check_kind, Cell, "a Cell", f"Cell([{EXAMPLE}])")]
    num_cells: Count = 3
    num_filters: Count = 32

    def __str__(self) -> str:
        return f"{self.num_cells} cells of {self.num_filters} filters; {self.cell}"

    def to_json(self) -> str:
        """Return the network as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the network that `to_json` wrote.

        Raises:
            TypeError: As for `Network` and `Cell`.
            ValueError: As for `Network` and `Cell`, or if the text is not a network in JSON.
        """
        values = _read(cls, text)
        return cls(**{**values, "cell": Cell(**_blocks(_checked(Cell, values["cell"])))})


def _read(kind: type, text: Any) -> dict[str, Any]:
    """Return the fields of a JSON object."""
    try:
        values = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        fix = f"Pass what {kind.__name__}.to_json() returned."
        raise invalid(f"{kind.__name__} in JSON", "be readable", repr(text), fix) from error
    return _checked(kind, values)


def _checked(kind: Any, values: Any) -> dict[str, Any]:
    """Return the values; raise unless they are the fields of `kind`."""
    names = [field.name for field in fields(kind)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        fix = f"Pass what {kind.__name__}.to_json() returned."
        raise invalid(f"{kind.__name__} in JSON", f"have the fields {names}", repr(values), fix)
    return values


def _blocks(values: dict[str, Any]) -> dict[str, Any]:
    blocks = as_list("Cell's blocks in JSON", values["blocks"])
    return {"blocks": [Block(**_checked(Block, block)) for block in blocks]}
