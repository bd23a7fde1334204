import pytest
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional
from metalearn.functional import DealtBatches, SampledBatches
from tests.cases import keys, relative_difference, sine_learner
from tests.outer.cases import assert_refused, learner


def test_dealt_batches_are_the_number_of_parts(episodes):
    built = [sine_learner(support_batches=each) for each in (5, DealtBatches(5))]
    assert built[0].support_batches == built[1].support_batches
    estimates = [one.estimate(episodes, keys()) for one in built]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) == 0


BAD = {
    "no parts": (lambda: DealtBatches(0), ValueError, "support_batches must be at least 1"),
    "a class": (
        lambda: learner(support_batches=SampledBatches),
        TypeError,
        "Write support_batches=5 or functional.SampledBatches(5), say",
    ),
    "batches of a loss": (
        lambda: functional.OnSupport(functional.ModelLoss(nn.Linear(1, 1), F.mse_loss), 5),
        TypeError,
        "OnSupport's batches must be a SupportBatches; got 5. Pass functional.DealtBatches(5), say",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
