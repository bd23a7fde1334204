from metalearn.search import OPERATORS as PNAS
from metalearn.search import Block, Cell
from metalearn.search._expand import blocks, expanded, smallest
from tests.search.cases import FIRST, OPERATORS, SPACE


def test_the_smallest_cells_are_as_many_as_in_the_paper():
    assert len(smallest([name for name in PNAS if name != "conv_3x3"])) == 136  # section 3.2


def test_blocks_are_unordered_pairs_of_an_operator_and_an_input():
    assert len(list(blocks(OPERATORS, 1))) == 9 * 10 // 2


def test_every_expansion_is_there_once_in_canonical_form():
    expected = {
        Cell([*cell.blocks, block]).canonical() for cell in FIRST for block in blocks(OPERATORS, 1)
    }
    assert set(SPACE) == set(FIRST) | expected
    assert len(SPACE) == len(set(SPACE)) == 21 + 735
    assert all(cell.canonical() == cell for cell in SPACE)
    chain = Cell(
        [Block("identity", -2, "sep_conv_3x3", -1), Block("identity", 0, "max_pool_3x3", -1)]
    )
    assert chain in expanded([Cell(chain.blocks[:1])], OPERATORS)
