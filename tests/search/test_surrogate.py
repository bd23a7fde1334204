import pytest
import torch

from metalearn.search import RidgeEnsemble
from metalearn.search._surrogate import features, rank_correlation
from tests.search.cases import SPACE, Structured


def test_it_ranks_cells_that_it_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(SPACE), generator=generator).tolist()
    seen, unseen = [SPACE[index] for index in order[:150]], [SPACE[index] for index in order[150:]]
    scores = [
        torch.tensor([Structured()(cell) for cell in cells], dtype=torch.float64)
        for cells in (seen, unseen)
    ]
    predict = RidgeEnsemble().fit(seen, scores[0], generator)
    assert rank_correlation(predict(unseen), scores[1]) > 0.9


def test_one_member_without_penalty_is_least_squares():
    cells = SPACE[:30]
    names = sorted({name for cell in cells for name in features(cell)})
    x = torch.tensor(
        [[features(cell)[name] for name in names] for cell in cells], dtype=torch.float64
    )
    scores = x @ torch.arange(len(names), dtype=torch.float64) + 3 * x[:, names.index("block")]
    predict = RidgeEnsemble(num_members=1, penalty=1e-9).fit(cells, scores, torch.Generator())
    torch.testing.assert_close(predict(cells), scores, rtol=1e-5, atol=1e-5)


def test_one_score_is_predicted_everywhere():
    predict = RidgeEnsemble().fit(
        SPACE[:1], torch.tensor([2.0], dtype=torch.float64), torch.Generator()
    )
    assert predict(SPACE[:3]).tolist() == [2.0, 2.0, 2.0]


def test_rank_correlation():
    x = torch.tensor([1.0, 5.0, 3.0, 2.0])
    assert rank_correlation(x, x.exp()) == 1
    assert rank_correlation(x, -x) == -1
    # With ties at their mean rank: ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4.
    tied = rank_correlation(torch.tensor([0.0, 1.0, 1.0, 2.0]), torch.tensor([0.0, 2.0, 1.0, 3.0]))
    assert tied == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation(torch.ones(3), x[:3]) != rank_correlation(torch.ones(3), x[:3])  # NaN


@pytest.mark.parametrize(
    ("name", "value"), [("num_members", 0), ("penalty", 0.0), ("optimism", float("nan"))]
)
def test_bad_input(name, value):
    with pytest.raises(ValueError, match=f"RidgeEnsemble's {name} must be"):
        RidgeEnsemble(**{name: value})
