import pickle

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach
from metalearn.functional import SampledBatches, ShuffledBatches
from metalearn.types import Batch, Episode
from tests.cases import EXACT_WAYS, keys, relative_difference, sine_episodes, sine_learner, task
from tests.outer.cases import assert_refused, learner

KEY = torch.tensor(7)
SAMPLED = [SampledBatches(2), SampledBatches(2, replacement=True), ShuffledBatches(2)]


def chosen(batches, key, step, num_examples=5):
    """Return which examples a step of the task with this key sees."""
    loss = functional.OnSupport(functional.ModelLoss(nn.Identity(), torch.sum), batches).of_task(
        key
    )
    return loss.batch(Episode(Batch(torch.arange(num_examples)), Batch(())), step).x


def by_hand(episodes, batches, *, num_steps=3, rate=0.01):
    """Return the second-order gradient of the mean query loss by a loop in plain autograd, and the
    adapted models."""
    model = sine_learner().model
    start, total, adapted = dict(model.named_parameters()), 0.0, []
    for index, key in enumerate(keys()):
        (x, y, _), (query_x, query_y, _) = task(episodes, index)
        params = start
        for step in range(num_steps):
            part = chosen(batches, key, step, len(x))
            loss = F.mse_loss(torch.func.functional_call(model, params, (x[part],)), y[part])
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {
                name: p - rate * g for (name, p), g in zip(params.items(), grads, strict=True)
            }
        total = total + F.mse_loss(
            torch.func.functional_call(model, params, (query_x,)), query_y
        ) / len(keys())
        adapted.append({name: param.detach() for name, param in params.items()})
    gradient = torch.autograd.grad(total, list(start.values()))
    return dict(zip(start, gradient, strict=True)), adapted


@pytest.mark.parametrize("batches", SAMPLED, ids=str)
class TestAgainstALoopByHand:
    @pytest.mark.parametrize("options", EXACT_WAYS, ids=str)
    def test_second_order(self, batches, options, episodes):
        one = sine_learner(support_batches=batches, **options)
        expected, adapted = by_hand(episodes, batches)
        assert relative_difference(one.estimate(episodes, keys()).gradient.init, expected) < 1e-12
        ours = one.adapt(episodes.support, keys=keys())
        for index, params in enumerate(adapted):
            assert relative_difference(take(ours.params, index), params) < 1e-12
        losses = ours.loss(episodes.query)
        torch.testing.assert_close(one.estimate(episodes, keys()).loss, losses, rtol=1e-12, atol=0)
        with torch.no_grad():
            torch.testing.assert_close(
                one(episodes, keys=keys()), losses.mean(), rtol=1e-12, atol=0
            )

    def test_reptile(self, batches, episodes):
        _, adapted = by_hand(episodes, batches)
        one = sine_learner(support_batches=batches, estimator=outer.ParameterDifference())
        start = dict(one.model.named_parameters())
        mean = {
            name: sum(start[name].detach() - each[name] for each in adapted) / 3 for name in start
        }
        assert relative_difference(one.estimate(episodes, keys()).gradient.init, mean) < 1e-10

    def test_forward_mode_is_reverse_mode(self, batches, episodes):
        estimates = [
            sine_learner(
                inner.LearnedRate(inner.SGD(0.01)),
                support_batches=batches,
                estimator=estimator,
                learn_init=False,
            ).estimate(episodes, keys())
            for estimator in (outer.Unrolled(), outer.ForwardMode())
        ]
        assert relative_difference(estimates[0].gradient.rule, estimates[1].gradient.rule) < 1e-10

    @pytest.mark.filterwarnings("ignore:.*inner_gradient")
    def test_implicit_trains_on_them_and_takes_the_curvature_of_all(self, batches, episodes):
        estimator = outer.Implicit(5.0, outer.Direct())
        still = [
            sine_learner(inner.SGD(1e-14), support_batches=each, estimator=estimator).estimate(
                episodes, keys()
            )
            for each in (None, batches)
        ]
        assert relative_difference(still[0].gradient, still[1].gradient) < 1e-9
        losses = [
            sine_learner(inner.SGD(0.01), support_batches=each, estimator=estimator)
            .estimate(episodes, keys())
            .loss
            for each in (None, batches)
        ]
        assert not torch.equal(*losses)

    def test_evolution_strategies(self, batches, episodes):
        estimator = outer.EvolutionStrategies(4, 0.01)
        losses, gradients = [], []
        for options in ({}, {"batching": "loop"}, {"chunk_size": 2}):
            one = sine_learner(support_batches=batches, estimator=estimator, **options)
            estimate = one.estimate(episodes, keys())
            losses.append(estimate.loss)
            gradients.append(estimate.gradient)
        expected = sine_learner(support_batches=batches).estimate(episodes, keys()).loss
        assert all(relative_difference(loss, expected) < 1e-12 for loss in losses)
        assert all(relative_difference(gradient, gradients[0]) < 1e-9 for gradient in gradients)

    def test_replicas(self, batches, episodes):
        doubled = Episode(*(Batch(torch.cat([b.x, b.x]), torch.cat([b.y, b.y])) for b in episodes))
        replicas = outer.Replicas([sine_learner(support_batches=batches) for _ in range(2)])
        gradient = replicas.estimate(doubled, torch.cat([keys(), keys()])).gradient.init
        expected, _ = by_hand(episodes, batches)
        for name, grad in gradient.items():
            assert relative_difference(grad, torch.stack([expected[name]] * 2)) < 1e-12

    def test_the_pure_function_of_one_task(self, batches, episodes):
        one = sine_learner(support_batches=batches, batching="loop")
        on, problem = one.problem.support_loss, one.problem
        gradient = outer.meta_gradient(on, problem.query_loss, problem.rule, outer.Unrolled(), 3)
        each = [
            gradient(tree_detach(one.meta), task(episodes, i), key).gradient.init
            for i, key in enumerate(keys())
        ]
        mean = {name: sum(grads[name] for grads in each) / 3 for name in each[0]}
        assert relative_difference(mean, by_hand(episodes, batches)[0]) < 1e-12

    def test_at_once_and_by_vmap(self, batches):
        """Models of known layers, and the same behind a module that is not known."""

        class Unknown(nn.Module):
            def __init__(self, inside):
                super().__init__()
                self.inside = inside

            def forward(self, x):
                return self.inside(x)

        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 6, 1, 8, 8, generator=generator, dtype=torch.float64)
        y = torch.arange(6).remainder(3).expand(3, 6)
        estimates = []
        for wrap in (nn.Sequential, Unknown):
            torch.manual_seed(0)
            model = wrap(models.conv4(1, 3, num_filters=3, image_size=8, num_layers=2).double())
            for fast in ("*", "*head.*"):
                one = outer.MAML(
                    model,
                    F.cross_entropy,
                    inner.SGD(0.3),
                    num_steps=3,
                    support_batches=batches,
                    fast=fast,
                )
                estimates.append(one.estimate(Episode(Batch(x[0], y), Batch(x[1], y)), keys()))
        for known, unknown in zip(estimates[:2], estimates[2:], strict=True):
            torch.testing.assert_close(known.loss, unknown.loss, rtol=1e-11, atol=1e-13)
            for ours, theirs in zip(known.gradient[:2], unknown.gradient[:2], strict=True):
                for left, right in zip(ours.values(), theirs.values(), strict=True):
                    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-13)

    def test_are_unbiased_and_reach_every_example(self, batches):
        draws = torch.cat([chosen(batches, KEY, step) for step in range(4000)])
        counts = torch.bincount(draws, minlength=5) / len(draws)
        assert (counts - 1 / 5).abs().max() < 4 * (0.16 / 8000) ** 0.5  # four standard errors

    def test_padded_tasks_see_what_they_would_without_padding(self, batches, episodes):
        x, y = episodes.support.x, episodes.support.y
        padded = Batch(
            torch.cat([x, x[:, :2] + 3], 1), torch.cat([y, y[:, :2]], 1), torch.ones(3, 7).double()
        )
        padded.weight[:, 5:] = 0

        def criterion(output, target, weight=None):
            squares = (output - target).square().mean(-1)
            return squares.mean() if weight is None else (weight * squares).sum() / weight.sum()

        for options in ({}, {"batching": "loop"}):
            built = [
                learner(
                    models.mlp(1, [4], 1).double(), criterion, support_batches=batches, **options
                )
                for _ in range(2)
            ]
            built[1].load_state_dict(built[0].state_dict())
            plain, ours = (
                one.adapt(support, 3, keys=keys()).params
                for one, support in zip(built, (episodes.support, padded), strict=True)
            )
            assert relative_difference(ours, plain) < 1e-12


def test_without_replacement_no_example_comes_twice():
    draws = [chosen(SampledBatches(4), KEY, step) for step in range(50)]
    assert all(len(draw.unique()) == 4 for draw in draws)
    assert len({tuple(draw.tolist()) for draw in draws}) > 20
    again = [chosen(SampledBatches(4, replacement=True), KEY, step) for step in range(50)]
    assert any(len(draw.unique()) < 4 for draw in again)


def epochs(batches, support, steps):
    """Return the examples that steps see, with their weights."""
    return [batches.of_step(support, KEY, step) for step in steps]


def test_an_epoch_has_every_example_once_and_an_order_of_its_own():
    orders = []
    for epoch in range(6):
        parts = epochs(ShuffledBatches(3), Batch(torch.arange(8)), range(3 * epoch, 3 * epoch + 3))
        assert [len(part.x) for part in parts] == [3, 3, 2]
        orders.append(torch.cat([part.x for part in parts]))
        assert orders[-1].sort().values.tolist() == list(range(8))
    assert len({tuple(order.tolist()) for order in orders}) == 6


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_padded_tasks_have_epochs_of_their_own_lengths(size):
    """Each task sees in its steps what it sees alone, wherever padding lies among its examples."""
    there = torch.tensor([[0, 1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    support = Batch(torch.arange(7).expand(3, 7), (), there.double())
    every_key = torch.tensor([3, 4, 5])
    for step in range(15):
        seen = ShuffledBatches(size).of_step(support, every_key, step, axis=1).weight > 0.5
        for index, key in enumerate(every_key):
            alone = Batch(torch.arange(7)[there[index] > 0])
            expected = ShuffledBatches(size).of_step(alone, key, step).x
            assert support.x[index][seen[index]].tolist() == sorted(expected.tolist())


def test_keys_that_follow_one_another_do_not_share_epochs():
    """A task's second epoch is not the next task's first."""
    orders = [
        chosen(ShuffledBatches(8), KEY + index, epoch, 8) for index, epoch in [(0, 1), (1, 0)]
    ]
    assert not torch.equal(*orders)


def test_more_than_there_are_is_all_of_them():
    assert sorted(chosen(ShuffledBatches(9), KEY, 3).tolist()) == list(range(5))


def test_the_whole_set_without_replacement_is_the_support_loss(episodes):
    estimates = [
        sine_learner(support_batches=each).estimate(episodes, keys())
        for each in (None, SampledBatches(5))
    ]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) < 1e-12


def test_of_a_padded_task_with_fewer_examples_all_are_seen():
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0])
    seen = SampledBatches(3).of_step(Batch(torch.arange(5), (), weight), KEY, 0).weight
    assert torch.equal(seen, weight)


def test_weights_count_in_every_batch():
    support = Batch(torch.arange(4.0)[:, None], torch.zeros(4), torch.tensor([1.0, 2.0, 0.5, 0.0]))
    alike = support._replace(weight=(support.weight > 0).float())
    for batches in (SampledBatches(2), SampledBatches(6, replacement=True)):
        ours, times = (batches.of_step(of, KEY, 0).weight for of in (support, alike))
        torch.testing.assert_close(ours, times * support.weight)


def test_other_keys_draw_others_than_the_masks_of_a_rule():
    """The numbers of a rule that draws by the same key are others, so that masks and batches are
    independent."""
    order = functional.uniform(KEY, (5,), 0, dtype=torch.float64).argsort()
    of_steps = [chosen(SampledBatches(5), KEY, step) for step in range(3)]
    assert not any(torch.equal(order, draw) for draw in of_steps)
    assert not torch.equal(chosen(SampledBatches(5), KEY, 0), chosen(SampledBatches(5), KEY + 1, 0))


def test_pickles(episodes):
    one = sine_learner(support_batches=SampledBatches(2))
    expected = one.estimate(episodes, keys()).loss
    assert torch.equal(pickle.loads(pickle.dumps(one)).estimate(episodes, keys()).loss, expected)


BAD = {
    "no example of an epoch": (
        lambda: ShuffledBatches(0),
        ValueError,
        "ShuffledBatches' size must be at least 1; got 0. Write ShuffledBatches(5), say.",
    ),
    "no example": (
        lambda: SampledBatches(0),
        ValueError,
        "SampledBatches' size must be at least 1",
    ),
    "half an example": (
        lambda: SampledBatches(0.5),
        TypeError,
        "SampledBatches' size must be an int",
    ),
    "a word": (lambda: SampledBatches(2, "yes"), TypeError, "replacement must be True or False"),
    "more than there are": (
        lambda: learner(support_batches=SampledBatches(6))(sine_episodes()),
        ValueError,
        "SampledBatches' size must be at most the 5 support examples; got 6. "
        "Write SampledBatches(5), or "
        "SampledBatches(6, replacement=True).",
    ),
    "tensors of other examples": (
        lambda: SampledBatches(2).check(
            Batch({"nodes": torch.zeros(2, 3, 1), "edges": torch.zeros(2, 4)})
        ),
        ValueError,
        "support tensors must have one number of examples to draw from",
    ),
    "no key": (
        lambda: learner(support_batches=SampledBatches(2)).problem.support_loss(
            {}, {}, task(sine_episodes()), 0
        ),
        ValueError,
        "be given the task's key; got none. Pass it to a learner as support_batches=",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    assert_refused(*BAD[case])
