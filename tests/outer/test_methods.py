import pytest
import torch.nn.functional as F

from metalearn import inner, models, outer
from tests.cases import sine_episodes

SGD = inner.SGD(0.01)


def build(method, **options):
    return method(models.mlp(1, [4, 4], 1).double(), F.mse_loss, SGD, **{"num_steps": 2, **options})


@pytest.mark.parametrize(
    ("method", "estimator", "fast"),
    [
        (outer.MAML, outer.Unrolled(), 6),
        (outer.FOMAML, outer.Unrolled(order=1), 6),
        (outer.ANIL, outer.Unrolled(), 2),
        (outer.Reptile, outer.ParameterDifference(), 6),
    ],
)
def test_choices(method, estimator, fast):
    if method is outer.ANIL:
        assert list(build(method).meta.init) == ["4.weight", "4.bias"]
    learner = build(method)
    assert learner.estimator == estimator
    assert len(learner.meta.init) == fast
    learner(sine_episodes()).backward()


def test_choices_can_be_changed():
    assert build(outer.MAML, estimator=outer.Stepwise()).estimator == outer.Stepwise()
    assert list(build(outer.ANIL, fast="0").meta.init) == ["0.weight", "0.bias"]


def test_the_head_is_the_last_that_can_be_learned():
    model = models.mlp(1, [4, 4], 1).double()
    model[4].requires_grad_(False)
    assert list(outer.ANIL(model, F.mse_loss, SGD, num_steps=1).meta.init) == ["2.weight", "2.bias"]


def test_reptile_trains_on_parts_of_the_support_set():
    learner = build(outer.Reptile, support_batches=5)
    learner(sine_episodes(k_shot=5)).backward()
