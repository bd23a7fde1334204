import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import baselines, evaluate, functional, outer
from metalearn._tree import tree_leaves, tree_map
from metalearn.types import Episode
from tests.baselines.cases import (
    assert_close,
    body_of,
    by_autograd,
    labelled,
    padded,
    padding_of,
    values,
)
from tests.cases import EXACT_WAYS

SIZES = [4, 30]
"""Numbers of features, with fewer and with more of them than of the nine support examples."""


def learner_of(num_features=4, num_outputs=3, criterion=functional.cross_entropy, **options):
    learner = baselines.RidgeRegression(
        body_of(num_features), num_features, num_outputs, criterion, penalty=0.3, **options
    ).double()
    with torch.no_grad():
        learner.model.calibration.alpha.fill_(2.0)
        learner.model.calibration.beta.fill_(0.1)
    return learner


def regression(seed=0):
    episodes = labelled(seed)
    generator = torch.Generator().manual_seed(seed + 1)

    def with_targets(batch):
        shape = (*batch.y.shape, 2)
        return batch._replace(y=torch.randn(shape, generator=generator, dtype=torch.float64))

    return Episode(*map(with_targets, episodes))


def normal_equations(x, y, penalty):
    x = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    return torch.inverse(x.T @ x + penalty * torch.eye(x.shape[1]).double()) @ (x.T @ y)


def loss_by_hand(learner, task, criterion):
    body, calibration = learner.model.body, learner.model.calibration
    y = task.support.y
    y = F.one_hot(y, 3).double() if y.dim() == 1 else y
    weights = normal_equations(body(task.support.x), y, learner.start.log_penalty.exp())
    outputs = body(task.query.x) @ weights[:-1] + weights[-1]
    return criterion(calibration.alpha * outputs + calibration.beta, task.query.y)


CASES = [
    pytest.param(labelled, 3, F.cross_entropy, id="classes"),
    pytest.param(regression, 2, F.mse_loss, id="regression"),
]


@pytest.mark.parametrize("num_features", SIZES)
@pytest.mark.parametrize(("episodes_of", "num_outputs", "criterion"), CASES)
def test_loss_and_gradient_are_those_of_the_normal_equations(
    num_features, episodes_of, num_outputs, criterion
):
    learner = learner_of(num_features, num_outputs, criterion)
    episodes = episodes_of()
    loss, expected = by_autograd(
        learner, episodes, lambda task: loss_by_hand(learner, task, criterion)
    )
    found = _, gradient = values(learner, episodes)
    assert_close(found, (loss, expected))
    assert gradient["start.log_penalty"].abs() > 1e-4
    assert gradient["model.calibration.alpha"].abs() > 1e-4


def test_the_gradient_to_the_penalty_is_a_finite_difference():
    learner, episodes, step = learner_of(), labelled(), 1e-5
    found = values(learner, episodes)[1]["start.log_penalty"]
    losses = []
    for sign in (1, -1):
        moved = copy.deepcopy(learner)
        with torch.no_grad():
            moved.start.log_penalty += sign * step
            losses.append(moved(episodes))
    torch.testing.assert_close(found, (losses[0] - losses[1]) / (2 * step), rtol=1e-7, atol=0)


@pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
def test_all_ways_of_running_agree(options):
    learner, episodes = learner_of(30), labelled()
    expected = values(learner, episodes)
    options = dict(options)
    learner.estimator = options.pop("estimator", outer.Unrolled())
    learner.set_batching(**options)
    assert_close(values(learner, episodes), expected)


def test_replicas_are_what_their_learners_are():
    learners, episodes = [learner_of(4), learner_of(4)], labelled()
    with torch.no_grad():
        learners[1].start.log_penalty += 1
    expected = [values(learner, episodes) for learner in learners]
    replicas = outer.Replicas(learners)
    losses = replicas(tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes))
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.stack([loss for loss, _ in expected]))
    for name, param in replicas.named_parameters():
        wanted = [gradient[name.removeprefix("learner.")] for _, gradient in expected]
        torch.testing.assert_close(param.grad, torch.stack(wanted), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("num_features", SIZES)
def test_padding_changes_nothing(num_features):
    learner, episodes = learner_of(num_features), labelled()
    assert_close(values(learner, padded(episodes)), values(learner, episodes))


def test_weights_weigh_squares():
    """An example of weight 2 is two examples."""
    learner, episodes = learner_of(), labelled()
    twice = padding_of(episodes.support, 0)
    twice = twice._replace(weight=twice.weight.index_fill(1, torch.tensor([2]), 2.0))
    again = tree_map(lambda leaf: torch.cat([leaf, leaf[:, 2:3]], 1), episodes.support)
    weights = [learner.adapt(support).params["head.weight"] for support in (twice, again)]
    torch.testing.assert_close(*weights, rtol=1e-10, atol=0)


def test_adapted_models_predict():
    learner, episodes = learner_of(2, 2, F.mse_loss), regression()
    adapted = learner.adapt(episodes.support)
    for index in range(3):
        x, y = learner.model.body(episodes.support.x[index]), episodes.support.y[index]
        weights = normal_equations(x, y, learner.start.log_penalty.exp())
        outputs = learner.model.body(episodes.query.x[index]) @ weights[:-1] + weights[-1]
        expected = (2.0 * outputs + 0.1).detach()
        torch.testing.assert_close(adapted(episodes.query.x)[index], expected)
        torch.testing.assert_close(adapted[index](episodes.query.x[index]).detach(), expected)


def test_steps_may_go_on_from_the_solution():
    learner, episodes = learner_of(), labelled()
    first, further = (learner.adapt(episodes.support, n) for n in (0, 1))
    for index in range(3):
        weight = first.params["head.weight"][index].requires_grad_()
        call = torch.func.functional_call
        outputs = call(learner.model, {"head.weight": weight}, episodes.support.x[index])
        loss = F.cross_entropy(outputs, episodes.support.y[index])
        expected = weight - learner.problem.rule.lr * torch.autograd.grad(loss, weight)[0]
        torch.testing.assert_close(further.params["head.weight"][index], expected.detach())


def test_it_trains_and_is_evaluated():
    learner, episodes = learner_of(30), labelled()
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    first = learner(episodes).item()
    for _ in range(20):
        optimizer.zero_grad()
        learner(episodes).backward()
        optimizer.step()
    accuracy = {"accuracy": functional.accuracy}
    evaluation = evaluate(learner, [episodes], num_tasks=3, metrics=accuracy)
    assert evaluation.num_steps == 0
    assert evaluation["loss"].mean < first
    torch.testing.assert_close(
        evaluation["loss"].values, learner.adapt(episodes.support).loss(episodes.query)
    )


def test_state_and_copies_have_what_is_learned():
    learner, other, episodes = learner_of(), learner_of(), labelled()
    with torch.no_grad():
        for param in other.parameters():
            param += 0.1
    assert "start.log_penalty" in other.state_dict()
    learner.load_state_dict(other.state_dict())
    for same in (learner, copy.deepcopy(other)):
        assert_close(values(same, episodes), values(other, episodes))


def test_low_precision_is_solved_in_float32():
    learner, episodes = (
        learner_of().float(),
        tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, labelled()),
    )
    exact = values(learner_of(), labelled())[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = values(learner, episodes)
    assert all(leaf.isfinite().all() for leaf in tree_leaves(gradient))
    assert abs(loss.double() - exact) < 0.05 * exact
    learner = learner.bfloat16()
    episodes = tree_map(lambda x: x.bfloat16() if x.is_floating_point() else x, episodes)
    assert abs(values(learner, episodes)[0].double() - exact) < 0.1 * exact


@pytest.mark.parametrize("num_features", [0, 4.0])
def test_sizes_are_counts(num_features):
    with pytest.raises((TypeError, ValueError), match="RidgeRegression's num_features must be"):
        baselines.RidgeRegression(body_of(4), num_features, 3)


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="RidgeRegression's body must be a module"):
        baselines.RidgeRegression(torch.tanh, 4, 3)
    with pytest.raises(ValueError, match="RidgeRegression's penalty must be positive"):
        baselines.RidgeRegression(body_of(4), 4, 3, penalty=0.0)
    with pytest.raises(
        ValueError,
        match=r"return 5 features, its num_features; got 4. Write "
        r"baselines.RidgeRegression\(body, 4, 3\).",
    ):
        baselines.RidgeRegression(body_of(4), 5, 3).double()(labelled())
    support = labelled().support
    floating = labelled()._replace(support=support._replace(y=support.y.double()))
    with pytest.raises(ValueError, match="support.y of RidgeRegression must be labels"):
        learner_of()(floating)
    body = nn.Sequential(body_of(4), nn.Unflatten(1, (2, 2)))
    with pytest.raises(ValueError, match=r"End it in nn.Flatten"):
        baselines.RidgeRegression(body, 4, 3).double()(labelled())
