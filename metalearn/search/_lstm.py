"""A surrogate that reads cells as sequences of operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metalearn._fields import Checked, Count, Positive
from metalearn._random import random_numbers_kept
from metalearn.search._cell import Cell
from metalearn.search._operators import OPERATORS
from metalearn.search._surrogate import Predict, Surrogate, sides


@dataclass(frozen=True)
class LSTMRanker(Surrogate, Checked):
    """An ensemble of LSTMs that read a cell operator by operator and learn to rank cells.

    They are trained on all pairs of cells at once, with a logistic loss on which one is better, so
    that predictions have no unit. It takes seconds, where `RidgeEnsemble` takes milliseconds.

    Args:
        num_members: Number of LSTMs, whose predictions are averaged, at least 1.
        hidden_size: Size of their states and of the embeddings of operators and inputs, at least 1.
        num_steps: Number of Adam steps, at least 1.
        lr: Learning rate of Adam, positive.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    References:
        Liu et al., "Progressive neural architecture search", ECCV 2018, section 4.3 (regression in
        place of ranking).
    """

    num_members: Count = 5
    hidden_size: Count = 32
    num_steps: Count = 100
    lr: Positive = 0.01

    def fit(self, cells: Sequence[Cell], scores: Tensor, generator: torch.Generator) -> Predict:
        """Train all members."""
        names = list(OPERATORS)
        read = sentences(cells, names)
        farthest = max(int(tokens[..., 1].max()) for _, tokens in read)
        seeds = torch.randint(2**31, (self.num_members,), generator=generator).tolist()
        with random_numbers_kept(), torch.enable_grad():
            members = []
            for seed in seeds:
                torch.default_generator.manual_seed(seed)
                reader = Reader(len(names), farthest + 1, self.hidden_size)
                members.append(self._trained(reader, read, scores))

        def predict(others: Sequence[Cell]) -> Tensor:
            read = sentences(others, names)
            with torch.no_grad():
                each = torch.stack([member(read, len(others)) for member in members])
            return each.mean(0).double()

        return predict

    def _trained(self, reader: "Reader", read: "list[Sentences]", scores: Tensor) -> "Reader":
        better = scores[:, None] > scores
        optimizer = torch.optim.Adam(reader.parameters(), lr=self.lr)
        for _ in range(self.num_steps if better.any() else 0):
            predicted = reader(read, len(scores))
            loss = F.softplus(predicted - predicted[:, None])[better].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return reader


Sentences = tuple[list[int], Tensor]
"""Indices of all cells of one length, and their tokens `[cells, length, 2]`: operator, input."""


def sentences(cells: Sequence[Cell], names: list[str]) -> list[Sentences]:
    """Return cells by length.

    Inputs are 0 and 1 for other cells, 2 for the previous block, 3 for the one before it, ...
    """
    order = sorted(range(len(cells)), key=lambda place: len(cells[place].blocks))
    found = []
    for _, group in groupby(order, key=lambda place: len(cells[place].blocks)):
        places = list(group)
        tokens = [
            [
                (names.index(operator), source + 2 if source < 0 else 1 + index - source)
                for index, block in enumerate(cells[place].blocks)
                for operator, source in sides(block)
            ]
            for place in places
        ]
        found.append((places, torch.tensor(tokens)))
    return found


class Reader(nn.Module):
    """An LSTM from sentences to scores; farther inputs than in training count as the farthest."""

    def __init__(self, num_operators: int, num_inputs: int, size: int) -> None:
        super().__init__()
        self.operators = nn.Embedding(num_operators, size)
        self.inputs = nn.Embedding(num_inputs, size)
        self.lstm, self.head = nn.LSTM(size, size, batch_first=True), nn.Linear(size, 1)

    def forward(self, read: list[Sentences], count: int) -> Tensor:
        """Return scores `[count]`."""
        result = torch.zeros(count)
        for places, tokens in read:
            operators, inputs = tokens.unbind(-1)
            inputs = inputs.clamp(max=self.inputs.num_embeddings - 1)
            x = self.operators(operators) + self.inputs(inputs)
            scores = self.head(self.lstm(x)[0][:, -1]).squeeze(1)
            result = result.index_put((torch.tensor(places),), scores)
        return result
