"""What predicts the scores of cells from the scores of others."""

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
    """The protocol: what `ProgressiveSearch` asks which cells to try next."""

    @abstractmethod
    def fit(self, cells: Sequence[Cell], scores: Tensor, generator: torch.Generator) -> Predict:
        """Learn from scores.

        Args:
            cells: Cells that have been tried, of any numbers of blocks.
            scores: Their scores `[num_cells]`, float64.
            generator: Source of its random numbers.

        Returns:
            A function from n cells to their predicted scores `[n]`, by which they are ranked.
        """


@dataclass(frozen=True)
class RidgeEnsemble(Surrogate, Checked):
    """Ridge regressions on what a cell is made of, each from a sample of the scores with
    replacement.

    What they see are counts: of the blocks, of every operator, with its input or not, of pairs of
    operators in a block, and of pairs of which one works on the other's output. Solved exactly, in
    milliseconds.

    Args:
        num_members: Number of regressions, at least 1; one takes all scores as they are.
        penalty: Of squared coefficients, positive.
        optimism: How many standard deviations of the members are added to their mean; above 0 it
            prefers cells that they disagree on.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one is out of range.

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
        columns = {
            name: index
            for index, name in enumerate(dict.fromkeys(name for counts in seen for name in counts))
        }
        x, size, members = matrix(seen, columns), len(cells), []
        centre = x.mean(0)
        x = x - centre
        mean, scale = scores.mean(), scores.std(correction=0).clamp(min=1e-12)
        for _ in range(self.num_members):
            rows = (
                torch.randint(size, (size,), generator=generator)
                if self.num_members > 1
                else torch.arange(size)
            )
            # In the form whose system has one row a score, of which there are fewer than columns.
            gram = x[rows] @ x[rows].T + self.penalty * torch.eye(size, dtype=x.dtype)
            members.append(x[rows].T @ torch.linalg.solve(gram, (scores[rows] - mean) / scale))
        coefficients = torch.stack(members, 1)

        def predict(others: Sequence[Cell]) -> Tensor:
            each = (matrix([features(cell) for cell in others], columns) - centre) @ coefficients
            return mean + scale * (each.mean(1) + self.optimism * each.std(1, correction=0))

        return predict


def features(cell: Cell) -> Counter[str]:
    """Count what a cell is made of."""
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


def matrix(rows: Sequence[Counter[str]], columns: dict[str, int]) -> Tensor:
    """Return counts `[num_rows, num_columns]`; what has no column is left out."""
    names = list(columns)
    return torch.tensor([[counts[name] for name in names] for counts in rows], dtype=torch.float64)


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
