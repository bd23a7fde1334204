from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from metalearn import functional
from metalearn.functional._known_criteria import is_known, known_losses
from metalearn.types import Batch

SQUARES = (F.mse_loss, torch.randn(3, 5, 2), torch.randn(3, 5, 2))
CLASSES = (F.cross_entropy, torch.randn(3, 5, 4), torch.arange(15).reshape(3, 5) % 4)
IGNORED = (F.cross_entropy, torch.randn(2, 3, 4), torch.tensor([[1, -100, 2], [-100, -100, 0]]))
OURS = (functional.cross_entropy, *CLASSES[1:])
PIXELS = (torch.randn(3, 5, 4, 2, 2), torch.arange(60).reshape(3, 5, 2, 2) % 4)
DENSE = (F.cross_entropy, *PIXELS)
OTHERS_IGNORED = (partial(functional.cross_entropy, ignore_index=1), *CLASSES[1:])
DENSE_IGNORED = (
    partial(F.cross_entropy, ignore_index=255),
    PIXELS[0],
    PIXELS[1].where(PIXELS[1] != 2, 255),
)


@pytest.mark.parametrize(
    "case", [SQUARES, CLASSES, IGNORED, OURS, DENSE, OTHERS_IGNORED, DENSE_IGNORED]
)
def test_is_the_criterion_of_every_task(case):
    criterion, outputs, targets = case
    assert is_known(criterion, outputs, Batch((), targets))
    torch.testing.assert_close(known_losses(*case), vmap(criterion)(outputs, targets))


UNKNOWN = [
    (F.l1_loss, *SQUARES[1:]),
    (F.mse_loss, torch.randn(3, 5, 2), torch.randn(3, 5)),
    (F.mse_loss, torch.randn(3), torch.randn(3)),
    (F.mse_loss, {"y": torch.randn(3, 5)}, torch.randn(3, 5)),
    (F.cross_entropy, torch.randn(3, 5, 4), torch.rand(3, 5, 4)),
    (F.cross_entropy, torch.randn(3, 4), torch.tensor([0, 1, 2])),
    (F.cross_entropy, torch.randn(3, 5, 4, 2), torch.zeros(3, 5, 3, dtype=torch.int64)),
    (partial(F.cross_entropy, label_smoothing=0.1), *CLASSES[1:]),
    (partial(F.l1_loss, reduction="sum"), *SQUARES[1:]),
]


@pytest.mark.parametrize("case", UNKNOWN)
def test_leaves_what_it_does_not_know(case):
    criterion, outputs, targets = case
    assert not is_known(criterion, outputs, Batch((), targets))
