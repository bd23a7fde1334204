"""Evolution strategies against the exact gradient in expectation, and on losses that have none."""

import math

import pytest
import torch

from metalearn import functional, inner, outer
from metalearn._tree import tree_leaves
from metalearn.types import Batch, Episode, Meta, Problem
from tests.cases import keys, sine_learner, task

DRAWN = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EPISODE = Episode(*(Batch(part[:, :3], part[:, 3]) for part in DRAWN))
META = Meta(
    {"w": torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)},
    {"b": torch.tensor([0.2]).double()},
    {},
)


def squares(params, shared, batch):
    return (batch.x @ params["w"] + shared["b"] - batch.y).square().mean()


def on_support(params, shared, episode, step):
    return squares(params, shared, episode.support)


def on_query(params, shared, episode):
    return squares(params, shared, episode.query)


def estimates(estimator, count=2000, support_loss=on_support):
    gradient = outer.meta_gradient(support_loss, on_query, inner.SGD(0.1), estimator, 2)
    return torch.func.vmap(lambda key: gradient(META, EPISODE, key))(torch.arange(count) + 7)


def test_agrees_with_the_exact_gradient_in_expectation():
    """For quadratic losses the smoothed gradient is the gradient: no bias but the sampling
    error."""
    exact = estimates(outer.Unrolled(), 1).gradient
    ours = estimates(outer.EvolutionStrategies(num_pairs=8, std=0.1)).gradient
    for sampled, expected in (
        (ours.init["w"], exact.init["w"]),
        (ours.shared["b"], exact.shared["b"]),
    ):
        error = sampled.std(0) / math.sqrt(len(sampled))
        assert ((sampled.mean(0) - expected[0]).abs() < 5 * error).all()
        assert (error < 0.1 * expected.norm()).all()


def test_estimates_inner_gradients_too():
    """For a quadratic loss estimated inner gradients are unbiased, so that one small step is
    too."""
    exact = estimates(outer.Unrolled(), 1)
    ours = estimates(outer.EvolutionStrategies(num_pairs=16, std=0.1, inner=True))
    assert ours.loss.std() > 0
    assert (ours.loss.mean() / exact.loss.mean() - 1).abs() < 0.2


def test_more_pairs_have_less_variance():
    few, many = (
        estimates(outer.EvolutionStrategies(num_pairs=n), 500).gradient.init["w"].var(0).sum()
        for n in (2, 32)
    )
    assert 8 < few / many < 32


def test_adapts_by_a_loss_without_a_gradient(episodes):
    """The fraction of examples off by more than 1 is piecewise constant: its gradient is zero
    everywhere."""

    def support_loss(params, shared, episode, step):
        errors = (torch.tanh(episode.support.x @ params["w"]) - torch.sign(episode.support.y)).abs()
        return (errors > 1).double().mean()

    x = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, x @ torch.tensor([1.0, 2.0, -1.0]).double())
    problem = (
        support_loss,
        lambda params, shared, episode: support_loss(params, shared, episode, 0),
    )
    meta = Meta({"w": torch.tensor([-0.1, 0.1, 0.1]).double()}, {}, {})
    losses = {}
    for inside in (False, True):
        estimator = outer.EvolutionStrategies(num_pairs=64, std=0.3, inner=inside)
        gradient = outer.meta_gradient(*problem, inner.SGD(1.0), estimator, 10)
        estimate = gradient(meta, Episode(batch, batch), torch.tensor(3))
        losses[inside] = estimate.loss.item()
        assert estimate.gradient.init["w"].any()
    assert losses[True] < 0.15 < losses[False]


def test_learns_by_losses_without_a_gradient(episodes):
    def hard(output, target):
        return ((output - target).abs() > 0.5).double().mean()

    estimator = outer.EvolutionStrategies(32, std=0.3, inner=True)
    learner = outer.MAML(
        sine_learner().model, hard, inner.SGD(0.1), num_steps=2, estimator=estimator
    )
    learner(episodes).backward()
    assert any(param.grad.any() for param in learner.parameters())


def test_keys_decide_the_directions():
    one, two = estimates(outer.EvolutionStrategies(2), 2).gradient.init["w"]
    again, _ = estimates(outer.EvolutionStrategies(2), 2).gradient.init["w"]
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


def straight(params, shared, episode, step=None):
    """A loss that is the parameter itself, so that its slope along a direction is that
    direction."""
    return params["w"].sum() + 0 * episode.support.x.sum()


LINE, START = (
    Problem(straight, straight, inner.SGD(1.0), 1),
    Meta({"w": torch.zeros(1).double()}, {}, {}),
)


def test_directions_are_not_what_a_rule_draws_of_the_same_key():
    key = torch.tensor(7)
    gradient = outer.EvolutionStrategies(num_pairs=1)(LINE, START, EPISODE, key, ()).gradient.init[
        "w"
    ]
    assert gradient.item() > 0
    assert gradient.item() != pytest.approx(
        functional.normal(key, (1, 1), dtype=torch.float64).square().item()
    )


def test_every_step_has_directions_of_its_own():
    estimator = outer.EvolutionStrategies(num_pairs=1, inner=True)
    one, two = (
        estimator.adapt(LINE, START, EPISODE.support, torch.tensor(7), n).params["w"].item()
        for n in (1, 2)
    )
    assert one < 0
    assert two != pytest.approx(2 * one)


def test_adapt_estimates_as_training_does(episodes):
    learner = sine_learner(estimator=outer.EvolutionStrategies(4, inner=True))
    adapted = learner.adapt(episodes.support, keys=keys())
    torch.testing.assert_close(
        adapted.loss(episodes.query), learner.estimate(episodes, keys()).loss
    )


def test_a_fixed_start_is_not_moved(episodes):
    learner = sine_learner(
        inner.MetaSGD(0.01), estimator=outer.EvolutionStrategies(4), learn_init="4"
    )
    gradient = learner.estimate(task(episodes, slice(0, 1))).gradient
    assert gradient.init["4.weight"].any()
    assert not gradient.init["0.weight"].any()
    assert all(leaf.any() for leaf in tree_leaves(gradient.rule))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: outer.EvolutionStrategies(0), ValueError, "num_pairs must be at least 1"),
        (lambda: outer.EvolutionStrategies(std=0.0), ValueError, "std must be positive"),
        (lambda: outer.EvolutionStrategies(inner=1), TypeError, "inner must be True or False"),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error) as raised:
        build()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "estimator",
    [
        outer.EvolutionStrategies(2, 0.1),
        outer.EvolutionStrategies(2, 0.1, inner=True),
        outer.PersistentES(2, 0.1, horizon=1),
    ],
    ids=str,
)
def test_complex_parameters_are_refused(estimator):
    model = torch.nn.Linear(1, 1, dtype=torch.complex128)

    def error(output, y):
        return (output - y).abs().square().mean()

    options = {"num_steps": 1, "estimator": estimator}
    with pytest.raises(TypeError, match="be real for evolution strategies; got complex ones"):
        outer.MetaLearner(model, error, inner.SGD(0.1), **options)
