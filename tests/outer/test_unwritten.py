"""Models that write into their buffers: where evaluation mode keeps them, that is the advice, and
works."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrizations

from metalearn import fit, inner, outer
from tests.cases import relative_difference, sine_episodes
from tests.outer.cases import assert_refused, learner
from tests.outer.test_architectures import gradient_by_hand

pytestmark = pytest.mark.filterwarnings("ignore:.*spectral_norm")
SPECTRAL = {"parametrization": parametrizations.spectral_norm, "hook": nn.utils.spectral_norm}
ADVICE = (
    "Call learner.eval(), or .eval() of the modules that hold them, once model(x) has set them."
)


def spectral(kind):
    torch.manual_seed(0)
    model = nn.Sequential(
        SPECTRAL[kind](nn.Linear(1, 4).double()), nn.Tanh(), nn.Linear(4, 1).double()
    )
    for _ in range(20):
        model(torch.ones(2, 1, dtype=torch.float64))
    return model


@pytest.mark.parametrize(
    "options", [{}, {"batching": "loop"}, {"estimator": outer.Stepwise()}], ids=str
)
@pytest.mark.parametrize("part", ["learner", "modules"])
@pytest.mark.parametrize("kind", SPECTRAL)
def test_spectral_norm(kind, part, options):
    model, episodes = spectral(kind), sine_episodes()
    made = learner(model, rule=inner.SGD(0.1), **options)
    modes = [module.training for module in made.modules()]
    assert_refused(lambda: made(episodes), ValueError, ADVICE)
    assert [module.training for module in made.modules()] == modes
    if part == "learner":
        made.eval()
    else:
        made.model[0].apply(nn.Module.eval)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = gradient_by_hand(model, episodes)
    assert relative_difference(made.estimate(episodes).gradient.init, expected) < 1e-10
    assert made.adapt(episodes.support)[0](episodes.query.x[0]).isfinite().all()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    if part == "modules":
        optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
        fit(made, [episodes], optimizer, 1, meta_batch_size=3, progress=False)


class Observed(nn.Module):
    """A module that lets a part of it keep a mean in training mode, or in all modes."""

    def __init__(self, always):
        super().__init__()
        self.linear, self.part, self.always = nn.Linear(1, 1).double(), nn.Module(), always
        self.part.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        h = self.linear(x)
        if self.training or self.always:
            self.part.mean = 0.9 * self.part.mean + 0.1 * h.detach().mean()
        return h - self.part.mean


def test_a_module_that_writes_into_another():
    model = Observed(always=False)
    made, message = (
        learner(model),
        "got writes into ['model.part.mean']. Call learner.eval(), once model(x) has set",
    )
    assert_refused(lambda: made(sine_episodes()), ValueError, message)
    assert model.part.mean == 0
    assert model.training
    assert made.eval()(sine_episodes()).isfinite()


def test_what_writes_in_all_modes_is_told_of_other_ways():
    message = "or keep what it writes in an estimator's carry."
    assert_refused(lambda: learner(Observed(always=True))(sine_episodes()), ValueError, message)


def test_what_fails_in_evaluation_mode_is_told_of_other_ways():
    class Failing(Observed):
        def forward(self, x):
            if not self.training:
                raise ValueError
            return super().forward(x)

    model = Failing(always=False)
    message = "or keep what it writes in an estimator's carry."
    assert_refused(lambda: learner(model, F.mse_loss)(sine_episodes()), ValueError, message)
    assert model.training


class Growing(nn.Module):
    """A table that the first call makes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1).double()
        self.register_buffer("table", torch.zeros(0, dtype=torch.float64))

    def forward(self, x):
        if len(self.table) < len(x):
            self.table = torch.linspace(0, 1, len(x), dtype=torch.float64)
        return self.linear(x) + self.table[: len(x), None]


def test_what_the_first_call_makes_is_told_to_be_made_before():
    model, message = (
        Growing(),
        "Call model(x) before you build the learner, on the largest input that will come.",
    )
    assert_refused(lambda: learner(model)(sine_episodes()), ValueError, message)
    model(sine_episodes().support.x[0])
    learner(model)(sine_episodes())
