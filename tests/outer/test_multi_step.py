"""The multi-step loss against a sum of losses of several learners, and its annealed weights."""

import pytest
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer
from metalearn._tree import tree_map
from metalearn.types import Carry
from tests.cases import keys, relative_difference, sine_learner

KINDS = [outer.Unrolled, outer.Stepwise]


def estimate(episodes, estimator, num_steps=3, rule=None, **options):
    return sine_learner(
        rule or inner.MetaSGD(0.01), estimator=estimator, num_steps=num_steps, **options
    ).estimate(episodes, keys())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("fast", ["*", "4"])
def test_is_the_mean_over_numbers_of_steps(kind, order, fast, episodes):
    ours = estimate(episodes, kind(order, multi_step=outer.MultiStep()), fast=fast)
    each = [estimate(episodes, kind(order), num_steps, fast=fast) for num_steps in (1, 2, 3)]
    mean = tree_map(lambda *leaves: sum(leaves) / 3, *(e.gradient for e in each))
    assert relative_difference(ours.gradient, mean) < 1e-10
    torch.testing.assert_close(ours.loss, sum(e.loss for e in each) / 3, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("truncate", [1, 2, 9])
def test_truncated_forms_agree(order, truncate, episodes):
    ours, theirs = (estimate(episodes, kind(order, truncate, outer.MultiStep(7))) for kind in KINDS)
    assert relative_difference(ours.gradient, theirs.gradient) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_to_nothing_passes_every_gradient_to_init(kind, episodes):
    ours = estimate(episodes, kind(truncate=0, multi_step=outer.MultiStep()), rule=inner.SGD(0.01))
    each = [estimate(episodes, kind(truncate=0), n, rule=inner.SGD(0.01)) for n in (1, 2, 3)]
    mean = tree_map(lambda *leaves: sum(leaves) / 3, *(e.gradient.init for e in each))
    assert relative_difference(ours.gradient.init, mean) < 1e-12


class TestWeights:
    def test_are_annealed_as_in_the_paper(self):
        multi_step = outer.MultiStep(num_iterations=100, floor=0.1)
        weights = [multi_step.weights(torch.tensor(float(i)), 4) for i in (0, 50, 90, 1000)]
        assert torch.equal(weights[0], torch.full((4,), 0.25))
        torch.testing.assert_close(weights[1], torch.tensor([0.125, 0.125, 0.125, 0.625]))
        torch.testing.assert_close(weights[2], torch.tensor([0.025, 0.025, 0.025, 0.925]))
        torch.testing.assert_close(weights[3], weights[2])

    def test_one_step_has_all_of_it(self):
        assert outer.MultiStep(10).weights(torch.tensor(3.0), 1).tolist() == [1.0]

    @pytest.mark.parametrize("kind", KINDS)
    def test_move_on_with_training_alone(self, kind, episodes):
        learner = sine_learner(estimator=kind(multi_step=outer.MultiStep(2)), num_steps=2)
        losses = [learner(episodes).item() for _ in range(4)]
        assert len({round(loss, 9) for loss in losses}) == 3  # at the floor from iteration 2 on
        last = sine_learner(num_steps=2)(episodes).item()
        assert abs(losses[3] - last) < abs(losses[0] - last)
        assert learner.estimate(episodes, keys()).carry.common == 5
        assert learner.eval()(episodes).item() == losses[3]

    def test_compile_once(self, episodes):
        compiled = []

        def backend(graph, inputs):
            compiled.append(graph)
            return graph.forward

        options = {"backend": backend, "fullgraph": True}
        learner = sine_learner(
            estimator=outer.Unrolled(multi_step=outer.MultiStep(5)), compile=options
        )
        losses = [learner(episodes).item() for _ in range(4)]
        assert len(compiled) == 1
        assert len(set(losses)) == 4

    def test_of_ones_own(self, episodes):
        class LastTwo(outer.MultiStep):
            def weights(self, iteration, num_steps):
                return torch.tensor([0.0] * (num_steps - 2) + [0.5, 0.5], dtype=iteration.dtype)

        ours = estimate(episodes, outer.Unrolled(multi_step=LastTwo()))
        each = [estimate(episodes, outer.Unrolled(), n).loss for n in (2, 3)]
        torch.testing.assert_close(ours.loss, sum(each) / 2, rtol=1e-12, atol=0)


def test_refuses_another_number_of_weights(episodes):
    class TooFew(outer.MultiStep):
        def weights(self, iteration, num_steps):
            return torch.ones(2, dtype=iteration.dtype)

    with pytest.raises(
        ValueError, match="multi-step weights must be 3, one for every step; got 2."
    ):
        estimate(episodes, outer.Unrolled(multi_step=TooFew()), 3)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: outer.MultiStep(0),
            ValueError,
            "num_iterations must be at least 1; got 0. None keeps all",
        ),
        (
            lambda: outer.MultiStep(10, floor=1.0),
            ValueError,
            "floor must be strictly between 0 and 1",
        ),
        (
            lambda: outer.Unrolled(multi_step=5),
            TypeError,
            "Pass outer.MultiStep(num_iterations=10_000).",
        ),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error) as raised:
        build()
    assert message in str(raised.value)


def test_orders_are_annealed_by_changing_the_estimator(episodes):
    """MAML++'s derivative-order annealing: the estimator is an attribute, compiled or not."""
    for compile in (False, {"backend": "eager"}):
        learner = sine_learner(estimator=outer.Unrolled(order=1), compile=compile)
        first = learner.estimate(episodes, keys()).gradient
        learner.estimator = outer.Unrolled(order=2)
        second = learner.estimate(episodes, keys()).gradient
        for gradient, order in ((first, 1), (second, 2)):
            expected = (
                sine_learner(estimator=outer.Unrolled(order)).estimate(episodes, keys()).gradient
            )
            assert relative_difference(gradient, expected) < 1e-12


def test_iterations_are_counted_exactly_in_bfloat16():
    estimator = outer.Unrolled(multi_step=outer.MultiStep(1000))
    model = models.mlp(1, [2], 1).bfloat16()
    learner = outer.MAML(model, F.mse_loss, inner.SGD(0.01), num_steps=2, estimator=estimator)
    episodes = tree_map(torch.Tensor.bfloat16, data.Sinusoid(3, 3).sample(3))
    learner(episodes)
    # in the dtype that the learner counts in
    learner.carry.keep(Carry(torch.full_like(learner.carry.value.common, 256.0)))
    learner(episodes)
    assert learner.carry.value.common.item() == 257


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_iterations_do_not_wait_for_diverged_tasks(chunk_size, episodes):
    estimator = outer.SkipDiverged(outer.Unrolled(multi_step=outer.MultiStep(10)))
    learner = sine_learner(estimator=estimator, num_steps=2, chunk_size=chunk_size)
    broken = episodes._replace(support=episodes.support._replace(y=episodes.support.y.clone()))
    broken.support.y[1] = torch.nan
    for _ in range(5):
        learner(broken)
    assert learner.carry.value.common.item() == 5.0
    broken.support.y[:] = torch.nan
    learner(broken)
    assert learner.carry.value.common.item() == 5.0


def test_iterations_are_counted_exactly_after_a_cast(episodes):
    learner = sine_learner(estimator=outer.Unrolled(multi_step=outer.MultiStep(10)), num_steps=1)
    learner(episodes)
    learner.bfloat16()
    learner.carry.common.value.fill_(256)
    learner(tree_map(lambda leaf: leaf.bfloat16(), episodes))
    assert learner.carry.value.common.item() == 257.0
