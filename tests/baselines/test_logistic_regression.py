import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines
from tests.baselines.cases import (
    assert_close,
    body_of,
    by_autograd,
    labelled,
    padded,
    values,
)
from tests.cases import EXACT_WAYS

SIZES = [4, 30]
"""Numbers of features, with fewer and with more of them than of the nine support examples."""


def learner_of(num_features=4, num_newton_steps=3):
    counts = {"num_newton_steps": num_newton_steps, "penalty": 0.3}
    body = body_of(num_features)
    return baselines.LogisticRegression(body, num_features, 3, **counts).double()


def with_ones(features):
    return torch.cat([features, torch.ones(len(features), 1).double()], 1)


def objective(weights, x, is_class, penalty):
    losses = F.binary_cross_entropy_with_logits(x @ weights, is_class, reduction="sum")
    return losses + penalty / 2 * weights.square().sum()


def newton(x, is_class, penalty, num_steps):
    """Take Newton's steps by the gradient and the Hessian themselves."""
    weights = torch.zeros(x.shape[1]).double()
    for _ in range(num_steps):
        output = (x @ weights).sigmoid()
        gradient = x.T @ (output - is_class) + penalty * weights
        hessian = x.T @ torch.diag(output * (1 - output)) @ x
        hessian = hessian + penalty * torch.eye(x.shape[1]).double()
        weights = weights - torch.inverse(hessian) @ gradient
    return weights


def loss_by_hand(learner, task, num_steps):
    body, penalty = learner.model.body, learner.start.log_penalty.exp()
    x, classes = with_ones(body(task.support.x)), F.one_hot(task.support.y).double().T
    weights = torch.stack([newton(x, each, penalty, num_steps) for each in classes], 1)
    return F.cross_entropy(with_ones(body(task.query.x)) @ weights, task.query.y)


@pytest.mark.parametrize("num_features", SIZES)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_loss_and_gradient_are_those_of_newtons_steps(num_features, num_steps):
    learner, episodes = learner_of(num_features, num_steps), labelled()
    expected = by_autograd(learner, episodes, lambda task: loss_by_hand(learner, task, num_steps))
    found = values(learner, episodes)
    assert_close(found, expected)
    assert found[1]["start.log_penalty"].abs() > 1e-4


@pytest.mark.parametrize("num_features", SIZES)
def test_enough_steps_reach_the_minimum(num_features):
    learner, episodes = learner_of(num_features, 12), labelled()
    found = learner.adapt(episodes.support).params["head.weight"]
    penalty = learner.start.log_penalty.exp().detach()
    for index in range(3):
        x = with_ones(learner.model.body(episodes.support.x[index])).detach()
        for label in range(3):
            weights = found[index, :, label].clone().requires_grad_()
            is_class = (episodes.support.y[index] == label).double()
            slope = torch.autograd.grad(objective(weights, x, is_class, penalty), weights)[0]
            assert slope.norm() < 1e-10


@pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
def test_all_ways_of_running_agree(options):
    learner, episodes = learner_of(30), labelled()
    expected = values(learner, episodes)
    options = dict(options)
    learner.estimator = options.pop("estimator", learner.estimator)
    learner.set_batching(**options)
    assert_close(values(learner, episodes), expected)


@pytest.mark.parametrize("num_features", SIZES)
def test_padding_changes_nothing(num_features):
    learner, episodes = learner_of(num_features), labelled()
    assert_close(values(learner, padded(episodes)), values(learner, episodes))


def test_separable_classes_stay_finite():
    """With hardly a penalty outputs saturate, and their slopes vanish."""
    body = nn.Linear(5, 4).float()
    learner = baselines.LogisticRegression(body, 4, 3, num_newton_steps=30, penalty=1e-6)
    episodes = labelled()
    far = [batch._replace(x=100 * batch.x.float()) for batch in episodes]
    loss, gradient = values(learner, type(episodes)(*far))
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in gradient.values())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="LogisticRegression's num_newton_steps must be at least"):
        learner_of(num_newton_steps=0)
    with pytest.raises(TypeError, match="LogisticRegression's num_classes must be an int"):
        baselines.LogisticRegression(body_of(4), 4, 3.0)
    with pytest.raises(ValueError, match=r"got 4. Write baselines.LogisticRegression\(body, 4, 3"):
        baselines.LogisticRegression(body_of(4), 5, 3).double()(labelled())
