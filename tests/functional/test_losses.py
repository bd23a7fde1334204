import pickle

import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional
from metalearn.types import Batch, Episode


def test_splits_shared_parameters_by_their_owner():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            return self.scale * F.mse_loss(output, target)

    loss = functional.ModelLoss(nn.Linear(1, 1), Scaled())
    params = {"weight": torch.tensor([[2.0]])}
    shared = {"model.bias": torch.tensor([1.0]), "criterion.scale": torch.tensor(10.0)}
    batch = Batch(torch.ones(4, 1), torch.zeros(4, 1))
    assert loss(params, shared, batch) == 90


def test_without_targets():
    loss = functional.ModelLoss(nn.Identity(), torch.mean)
    assert loss({}, {}, Batch(torch.tensor([1.0, 3.0]))) == 2


def test_an_empty_list_of_weights_is_none():
    loss = functional.ModelLoss(nn.Identity(), F.mse_loss)
    assert loss({}, {}, Batch(torch.tensor([1.0, 3.0]), torch.zeros(2), [])) == 5


def test_on_parts_of_the_support_set():
    loss = functional.OnSupport(
        functional.ModelLoss(nn.Identity(), torch.sum), functional.DealtBatches(2)
    )
    episode = Episode(Batch(torch.tensor([1.0, 10.0, 2.0, 20.0])), Batch(()))
    assert [loss({}, {}, episode, step).item() for step in range(3)] == [3, 30, 3]
    assert loss.whole()({}, {}, episode, 0) == 33


def test_pickles():
    loss = pickle.loads(pickle.dumps(functional.ModelLoss(nn.Linear(1, 1), F.mse_loss)))
    assert loss.criterion is F.mse_loss
