from dataclasses import replace

import pytest
import torch

from metalearn.search import Block, Cell, LSTMRanker
from metalearn.search._lstm import sentences
from metalearn.search._surrogate import rank_correlation
from tests.search.cases import SPACE, Structured
from tests.search.test_progressive import SEARCH

GENERATOR = torch.Generator()


def test_it_ranks_cells_that_it_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(SPACE), generator=generator).tolist()
    seen, unseen = [SPACE[index] for index in order[:75]], [SPACE[index] for index in order[75:]]
    scores = [
        torch.tensor([Structured()(cell) for cell in cells], dtype=torch.float64)
        for cells in (seen, unseen)
    ]
    before = torch.random.get_rng_state()
    predict = LSTMRanker(num_members=1, num_steps=60).fit(seen, scores[0], generator)
    assert rank_correlation(predict(unseen), scores[1]) > 0.8
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_search_with_it_finds_the_best_cell():
    search = replace(SEARCH, surrogate=LSTMRanker(num_members=1, num_steps=50))
    first, again = search.run(Structured()), search.run(Structured())
    assert first.best.score == max(map(Structured(), SPACE))
    assert first.rank_correlations == again.rank_correlations


def test_sentences():
    one = Cell([Block("identity", -1, "conv_3x3", -2)])
    two = Cell([*one.blocks, Block("conv_3x3", 0, "identity", -1)])
    three = Cell([*two.blocks, Block("identity", 0, "identity", 1)])
    names = ["identity", "conv_3x3"]
    (short, tokens), (middle, _), (long, last) = sentences([three, one, two, one], names)
    assert (short, middle, long) == ([1, 3], [2], [0])
    assert tokens.tolist() == 2 * [[[0, 1], [1, 0]]]
    assert last[0, 2:].tolist() == [[1, 2], [0, 1], [0, 3], [0, 2]]


def test_equal_scores_rank_nothing_and_larger_cells_are_read():
    one, scores = Block("identity", -1, "identity", -2), torch.arange(2, dtype=torch.float64)
    predict = LSTMRanker(num_members=1).fit(
        [Cell([one]), Cell([Block("conv_3x3", -1, "identity", -2)])], scores, GENERATOR
    )
    above, beside = predict(
        [Cell([one, Block("identity", name, "identity", -2)]) for name in (0, -1)]
    )
    assert above == beside  # what is farther than it has seen is as far as that
    predict = LSTMRanker(num_members=1).fit(
        SPACE[:2], torch.ones(2, dtype=torch.float64), GENERATOR
    )
    assert predict([Cell([one] * 4), SPACE[0]]).shape == (2,)


@pytest.mark.parametrize("name", ["num_members", "hidden_size", "num_steps", "lr"])
def test_bad_input(name):
    with pytest.raises(ValueError, match=f"LSTMRanker's {name} must be"):
        LSTMRanker(**{name: 0})
