import itertools
import random

import pytest

from metalearn.search import Block, Cell, Network

CONV = Block("conv_3x3", -1, "identity", -2)
CELL = Cell(
    [CONV, Block("max_pool_3x3", 0, "sep_conv_5x5", -1), Block("identity", -1, "identity", -1)]
)


def test_they_print_and_go_to_json_and_back():
    assert str(CELL) == (
        "0: conv_3x3(-1) + identity(-2); 1: max_pool_3x3(0) + sep_conv_5x5(-1); 2: "
        "identity(-1) + identity(-1)"
    )
    network = Network(CELL, num_cells=2, num_filters=5)
    assert str(network) == f"2 cells of 5 filters; {CELL}"
    assert Cell.from_json(CELL.to_json()) == CELL
    assert Network.from_json(network.to_json()) == network
    assert len({CELL, Cell.from_json(CELL.to_json())}) == 1


def test_the_output_is_of_the_blocks_that_no_other_uses():
    assert CELL.outputs == (1, 2)


def test_orders_that_mean_the_same_have_one_canonical_form():
    parts = [
        ("conv_3x3", -1, "identity", -2),
        ("max_pool_3x3", -1, "identity", -1),
        ("sep_conv_3x3", -2, "identity", -1),
    ]
    forms = set()
    for order in itertools.permutations(range(3)):
        names = {part: index for index, part in enumerate(order)}
        blocks = [Block(*parts[part]) for part in order]
        last = Block("conv_3x3", names[0], "avg_pool_3x3", names[2])
        mirrored = Block(last.right_operator, last.right, last.left_operator, last.left)
        forms |= {Cell([*blocks, last]).canonical(), Cell([*blocks, mirrored]).canonical()}
    assert len(forms) == 1
    assert (
        Cell([CONV, Block("identity", 0, "identity", 0)]).canonical()
        != Cell([CONV, CONV]).canonical()
    )


NO_SUCH_BLOCK = (
    '{"blocks": [{"left_operator": "identity", "left": 3, '
    '"right_operator": "identity", "right": -1}]}'
)
BAD = [
    (lambda: Block("conv_3x2", -1, "identity", -1), ValueError, "Did you mean 'conv_3x3'?"),
    (
        lambda: Block("identity", -3, "identity", -1),
        ValueError,
        "must be at least -2; got -3. -1 is the previous cell",
    ),
    (lambda: Block("identity", "0", "identity", -1), TypeError, "Block's left must be an int"),
    (lambda: Cell([]), ValueError, "Write Cell([Block("),
    (lambda: Cell(3), TypeError, "must be a list of blocks"),
    (lambda: Cell(["conv_3x3"]), TypeError, "block 0 must be a Block"),
    (
        lambda: Cell([Block("identity", 0, "identity", -1)]),
        ValueError,
        "block 0 must refer to inputs from -2 to -1",
    ),
    (
        lambda: Cell([CONV, Block("identity", 1, "identity", 0)]),
        ValueError,
        "0 to 0 the blocks before",
    ),
    (lambda: Network(CONV), TypeError, "Network's cell must be a Cell"),
    (lambda: Network(CELL, num_cells=0), ValueError, "num_cells must be at least 1"),
    (lambda: Cell.from_json("{"), ValueError, "Cell in JSON must be readable"),
    (
        lambda: Cell.from_json(CELL.to_json()[:-1] + ', "more": 1}'),
        ValueError,
        "must have the fields ['blocks']",
    ),
    (lambda: Cell.from_json('{"blocks": [1]}'), ValueError, "Block in JSON must have the fields"),
    (
        lambda: Cell.from_json(NO_SUCH_BLOCK),
        ValueError,
        "block 0 must refer to inputs from -2 to -1",
    ),
    (
        lambda: Network.from_json(CELL.to_json()),
        ValueError,
        "must have the fields ['cell', 'num_cells'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_all_orders_of_a_cell_have_one_form():
    def orders(blocks, names):
        if len(names) == len(blocks):
            yield Cell([blocks[index].renamed(names) for index in names])
        for index, block in enumerate(blocks):
            if index not in names and all(name < 0 or name in names for name in block.inputs):
                yield from orders(blocks, {**names, index: len(names)})

    names = ("avg_pool_3x3", "conv_3x3", "identity", "max_pool_3x3")
    draws = random.Random(0)
    for _ in range(100):
        sides = [
            (draws.choice(names), draws.randint(-2, index - 1)) for index in (0, 0, 1, 1, 2, 2)
        ]
        cell = Cell([Block(*sides[2 * index], *sides[2 * index + 1]) for index in range(3)])
        assert len({order.canonical() for order in orders(cell.blocks, {})}) == 1
