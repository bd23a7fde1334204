"""Fixtures that several test modules share."""

import pytest
import torch

from metalearn import models
from tests.cases import sine_episodes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def episodes():
    return sine_episodes()


@pytest.fixture
def model():
    return models.mlp(1, [6, 6], 1).double()
