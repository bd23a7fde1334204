"""What a learner refuses of its arguments: the error's type and a part of its message, the fix
included."""

import functools

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, outer
from tests.outer.cases import SGD, assert_refused, learner


def with_batch_norm():
    return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


AT_CONSTRUCTION = {
    "a model's class": (lambda: learner(nn.Linear), TypeError, "model must be an nn.Module"),
    "a wrapped model": (
        lambda: learner(nn.DataParallel(nn.Linear(1, 1))),
        TypeError,
        "Pass the bare module; wrap",
    ),
    "a rule's class": (lambda: learner(rule=inner.SGD), TypeError, "Write SGD(...)."),
    "an estimator's class": (
        lambda: learner(estimator=outer.Unrolled),
        TypeError,
        "Write Unrolled(...).",
    ),
    "a module as estimator": (
        lambda: learner(estimator=nn.Linear(1, 1)),
        TypeError,
        "Pass one: outer.Unrolled().",
    ),
    "a criterion's name": (
        lambda: learner(criterion="mse"),
        TypeError,
        "criterion must be a function or a module; got 'mse'",
    ),
    "no criterion": (
        lambda: learner(criterion=None),
        TypeError,
        "both support_loss and query_loss",
    ),
    "no steps": (
        lambda: learner(num_steps=0),
        ValueError,
        "num_steps must be at least 1; got 0. Write num_steps=5",
    ),
    "half a step": (lambda: learner(num_steps=0.5), TypeError, "num_steps must be an int; got 0.5"),
    "no chunk": (lambda: learner(chunk_size=0), ValueError, "chunk_size must be at least 1"),
    "no support batches": (
        lambda: learner(support_batches=0),
        ValueError,
        "support_batches must be at least 1",
    ),
    "unknown batching": (lambda: learner(batching="vamp"), ValueError, "Did you mean 'vmap'?"),
    "a typo": (lambda: learner(num_step=3), TypeError, "num_step"),
    "compile by a wrong option": (
        lambda: learner(compile={"backed": "eager"}),
        ValueError,
        "got 'backed'. Did you mean 'backend'?",
    ),
    "compile by a misspelt word": (
        lambda: learner(compile="steps"),
        TypeError,
        'Write compile="step".',
    ),
    "compile by name": (
        lambda: learner(compile="inductor"),
        TypeError,
        'compile={"backend": "inductor"}',
    ),
    "running statistics": (
        lambda: learner(with_batch_norm()),
        ValueError,
        (
            "got them in ['1']. Write models.use_batch_statistics(model, 'support'), or 'frozen' "
            "if it is pretrained; see"
        ),
    ),
    "a pattern of nothing": (
        lambda: learner(fast="0.wieght"),
        ValueError,
        "Did you mean '0.weight'?",
    ),
    "an empty pattern": (lambda: learner(fast=""), ValueError, "fast='*' takes all"),
    "an empty list": (
        lambda: learner(fast=[]),
        ValueError,
        "fast must choose at least one parameter",
    ),
    "a predicate of nothing": (
        lambda: learner(fast=lambda name: False),
        ValueError,
        "at least one parameter",
    ),
    "a number as pattern": (lambda: learner(fast=3), TypeError, "Write fast='head.*', say."),
    "no fast parameters": (
        lambda: learner(fast=False),
        ValueError,
        "fast must choose at least one parameter",
    ),
    "a start that is not fast": (
        lambda: learner(fast="2", learn_init="0"),
        ValueError,
        "learn_init must match a trainable parameter of ['2.weight', '2.bias']",
    ),
    "a criterion's class": (
        lambda: learner(criterion=nn.MSELoss),
        TypeError,
        "Pass F.mse_loss or nn.MSELoss().",
    ),
    "a model without parameters": (
        lambda: learner(nn.Flatten()),
        ValueError,
        "model must have parameters",
    ),
    "a model that served another learner": (
        lambda: learner(learner(rule=inner.MetaSGD(0.01), learn_init=False).model),
        ValueError,
        "Build the model anew: with learn_init=False it serves one learner.",
    ),
    "a lazy model": (
        lambda: learner(nn.LazyLinear(1)),
        ValueError,
        "Call it once on an example: model(x).",
    ),
    "a module as pattern": (
        lambda: learner(fast=nn.Linear(1, 1)),
        TypeError,
        "Write fast='head.*', say.",
    ),
    "two inner losses": (
        lambda: learner(support_loss=print, support_criterion=F.l1_loss),
        TypeError,
        "Leave out support_criterion and support_batches, or support_loss.",
    ),
    "parts of a support set that is not used": (
        lambda: learner(support_loss=print, support_batches=2),
        TypeError,
        "support_loss must be given alone",
    ),
    "a criterion that is not used": (
        lambda: learner(support_loss=print, query_loss=print),
        TypeError,
        "criterion must be None if both losses are given",
    ),
    "first-order MAML of second order": (
        lambda: outer.FOMAML(
            nn.Linear(1, 1), F.mse_loss, SGD, num_steps=1, estimator=outer.Stepwise()
        ),
        TypeError,
        "estimator",
    ),
    "ANIL without a head": (
        lambda: outer.ANIL(nn.Linear(1, 1), F.mse_loss, SGD, num_steps=1),
        ValueError,
        (
            "ANIL's head must be a module of its own; got parameters ['weight', 'bias'] of the "
            "model. Name what adapts"
        ),
    ),
    "Reptile for a shared body": (
        lambda: learner(fast="2", estimator=outer.ParameterDifference()),
        ValueError,
        (
            "['model.0.weight', 'model.0.bias'] too; got one that reaches init only. Use an "
            "estimator that reaches them,"
        ),
    ),
    "Reptile for a learned rule": (
        lambda: learner(rule=inner.MetaSGD(0.01), estimator=outer.ParameterDifference()),
        ValueError,
        "rule.rate.0.weight",
    ),
    "no differentiated step for a learned rule": (
        lambda: learner(rule=inner.MetaSGD(0.01), estimator=outer.Unrolled(truncate=0)),
        ValueError,
        "got one that reaches init, shared only",
    ),
    "an implicit gradient for a learned rule": (
        lambda: learner(rule=inner.MetaSGD(0.01), estimator=outer.Implicit(2.0)),
        ValueError,
        (
            "Use an estimator that reaches them, as outer.Unrolled() does, or a rule without "
            "meta-parameters."
        ),
    ),
    "clipping what is not learned": (
        lambda: learner(estimator=outer.ClipPerTask(outer.Unrolled(), 1.0, on="rule")),
        ValueError,
        (
            "ClipPerTask's on must be a field of Meta that is learned; got 'rule'. Choose on= "
            "among ['init']."
        ),
    ),
    "a step away and back alone": (
        lambda: learner(estimator=outer.Implicit(2.0, proximal="last_step"), num_steps=1),
        ValueError,
        "must be at least 2; got 1",
    ),
    "clipping no estimator": (
        lambda: outer.ClipPerTask(outer.Unrolled, 1.0),
        TypeError,
        "Write Unrolled(...)",
    ),
    "clipping at nothing": (
        lambda: outer.ClipPerTask(outer.Unrolled(), 0.0),
        ValueError,
        "must be positive",
    ),
    "clipping elsewhere": (
        lambda: outer.ClipPerTask(outer.Unrolled(), 1.0, on="head"),
        ValueError,
        "one of",
    ),
    "no module for ANIL": (
        lambda: outer.ANIL(3, F.mse_loss, SGD, num_steps=1),
        TypeError,
        "be an nn.Module",
    ),
}


@pytest.mark.parametrize("name", AT_CONSTRUCTION)
def test_at_construction(name):
    assert_refused(*AT_CONSTRUCTION[name])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            {"support_loss": lambda params, shared, episode: 0},
            "support_loss must take (params, shared, episode, step); g",
        ),
        ({"support_loss": functional.cross_entropy}, "a loss of output and y is a criterion."),
        (
            {"query_loss": nn.MSELoss()},
            "query_loss must take (params, shared, episode); got (input, target): too many",
        ),
    ],
)
def test_losses_are_called_with_what_they_take(losses, message):
    assert_refused(lambda: learner(**losses), TypeError, message)


def test_compiling_is_asked_for_by_set_batching():
    with pytest.raises(AttributeError, match=r"Write learner.set_batching\(compile=True\)"):
        learner().compile = True
    with pytest.raises(TypeError, match='Write compile={"mode": "reduce-overhead"}'):
        learner(compile="reduce-overhead")


def test_numbers_of_numpy_are_to_be_converted():
    with pytest.raises(
        TypeError, match=r"num_steps must be an int; got .*5.*. Convert it: int\(...\)."
    ):
        learner(num_steps=np.int64(5))


def test_adapters_are_judged_by_their_own_arguments():
    @functools.wraps(lambda params, shared, episode: 0)
    def support_loss(params, shared, episode, step):
        return sum(param.square().sum() for param in params.values())

    assert learner(support_loss=support_loss)
    with pytest.raises(
        TypeError, match=r"num_steps must be an int; got tensor\(2.5000\). Write num_steps=5, say"
    ):
        learner(num_steps=torch.tensor(2.5))
