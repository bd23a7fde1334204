"""Fixtures that several test modules share."""

import pytest
import torch
from hypothesis import settings

from metalearn import models
from metalearn.outer import _compile, _compiled_step
from tests.cases import sine_episodes

# `pytest --hypothesis-profile=nightly` takes the other one.
settings.register_profile("ci", max_examples=5, derandomize=True, deadline=None, database=None)
settings.register_profile("nightly", max_examples=100, deadline=None, print_blob=True)
settings.load_profile("ci")


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


@pytest.fixture
def steps_as_they_are(monkeypatch):
    """Run the graphs of compiled steps without inductor, which takes half a minute for each."""
    made = _compiled_step.CapturedStep
    monkeypatch.setattr(
        _compiled_step,
        "CapturedStep",
        lambda function, options, *rest, **named: made(function, None, *rest, **named),
    )


@pytest.fixture
def inner_steps_as_they_are(monkeypatch):
    """Run the graphs of single inner steps without inductor, likewise."""
    made = _compile.SteppedStep
    monkeypatch.setattr(
        _compile, "SteppedStep", lambda function, _, args: made(function, None, args)
    )
