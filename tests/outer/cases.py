"""What the tests share."""

import pytest
import torch.nn.functional as F

from metalearn import inner, models, outer

SGD = inner.SGD(0.01)


def learner(model=None, criterion=F.mse_loss, rule=SGD, **options):
    return outer.MetaLearner(
        model or models.mlp(1, [4], 1).double(), criterion, rule, **{"num_steps": 2} | options
    )


def assert_refused(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
