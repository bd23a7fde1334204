"""Surrogates, which predict the scores of cells from those of others."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Checked, Count, Number, Positive
from metalearn.search._cell import Block, Cell

Predict = Callable[[Sequence[Cell]], Tensor]


class Surrogate(ABC):
    """The protocol of surrogates, by which `ProgressiveSearch` chooses the cells to try next."""

    @abstractmethod
    def fit(self, cells: Sequence[Cell], scores: Tensor, generator: torch.Generator) -> Predict:
        """Fit the surrogate to scores.

        Args:
            cells: Tried cells, of any numbers of blocks.
            scores: Their scores `[num_cells]`, float64.
            generator: Source of all randomness.

        Returns:
            A function from n cells to their predicted scores `[n]`, by which they are ranked.
        """


@dataclass(frozen=True)
class RidgeEnsemble(Surrogate, Checked):
    """A bootstrap ensemble of ridge regressions on counts of a cell's parts.

    The features count blocks, operators (alone and with their input), pairs of operators in a
    block, and pairs where one operator is applied to the other's output. The regressions are solved
    exactly, in milliseconds.

    Args:
        num_members: Number of regressions, at least 1; a single one uses all scores.
        penalty: Penalty on squared coefficients, positive.
        optimism: Number of the members' standard deviations added to their mean; a positive one
            prefers cells on which they disagree.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    References:
        Liu et al., "Progressive neural architecture search", ECCV 2018 (an ensemble of multi-layer
        perceptrons).
    """

    num_members: Count = 5
    penalty: Positive = 0.3
    optimism: Number = 0.5

    def fit(self, cells: Sequence[Cell], scores: Tensor, generator: torch.Generator) -> Predict:
        """Solve all regressions."""
        seen = [features(cell) for cell in cells]
        columns = list(dict.fromkeys(name for counts in seen for name in counts))
        x, size, members = matrix(seen, columns), len(cells), []
        centre = x.mean(0)
        x = x - centre
        mean, scale = scores.mean(), scores.std(correction=0).clamp(min=1e-12)
        is_one = self.num_members == 1
        for _ in range(self.num_members):
            rows = (
                torch.arange(size) if is_one else torch.randint(size, (size,), generator=generator)
            )
            # the dual form: there are fewer scores than features
            gram = x[rows] @ x[rows].T + self.penalty * torch.eye(size, dtype=x.dtype)
            members.append(x[rows].T @ torch.linalg.solve(gram, (scores[rows] - mean) / scale))
        coefficients = torch.stack(members, 1)

        def predict(others: Sequence[Cell]) -> Tensor:
            each = (matrix([features(cell) for cell in others], columns) - centre) @ coefficients
            return mean + scale * (each.mean(1) + self.optimism * each.std(1, correction=0))

        return predict


def features(cell: Cell) -> Counter[str]:
    """Count a cell's parts."""
    counts = Counter({"block": len(cell.blocks)})
    for block in cell.blocks:
        pair = sides(block)
        counts["+".join(sorted(operator for operator, _ in pair))] += 1
        for operator, source in pair:
            counts[operator] += 1
            counts[f"{operator}({min(source, 0)})"] += 1
            if source >= 0:
                for below, _ in sides(cell.blocks[source]):
                    counts[f"{operator}({below})"] += 1
    return counts


def sides(block: Block) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return a block's operators, each with its input."""
    return (block.left_operator, block.left), (block.right_operator, block.right)


def matrix(rows: Sequence[Counter[str]], columns: list[str]) -> Tensor:
    """Return counts `[num_rows, num_columns]`; parts without a column are left out."""
    counted = [[counts[name] for name in columns] for counts in rows]
    return torch.tensor(counted, dtype=torch.float64)


def rank_correlation(predicted: Tensor, actual: Tensor) -> float:
    """Return Spearman's rank correlation of two vectors; NaN where one is constant.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.1, 0.2, 0.3]))
    1.0
    """
    ranks = [
        (x[:, None] > x).double().sum(1) + 0.5 * (x[:, None] == x).double().sum(1)
        for x in (predicted, actual)
    ]
    left, right = (rank - rank.mean() for rank in ranks)
    norm = left.norm() * right.norm()
    return round(float(left @ right / norm), 12) if norm > 0 else float("nan")
