"""The implicit gradient against closed forms, the unrolled limit, and what iMAML claims for it."""

import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, models, outer, testing
from metalearn._tasks import take
from metalearn.outer._proximal import Proximal
from metalearn.types import Batch, Episode, Meta, Problem
from tests.cases import keys, relative_difference, sine_episodes, sine_learner, task
from tests.outer.ridge import (
    EPISODE,
    META,
    ONE_PENALTY,
    RATE,
    closed_form,
    curved,
    draw,
    error,
    estimate_of,
    on_query,
    ridge,
    run_on,
)

STRENGTH = 5.0


def implicit(solver, num_steps=1000, **options):
    estimator = outer.Implicit(STRENGTH, solver, **options)
    gradient = outer.meta_gradient(ridge, on_query, inner.SGD(0.1), estimator, num_steps)
    return gradient(META, EPISODE, torch.tensor(0))


@pytest.mark.parametrize(
    "solver", [outer.Direct(), outer.CG(4), outer.CG(30), outer.Neumann(300)], ids=str
)
def test_equals_the_closed_form(solver):
    gradient, loss = closed_form(STRENGTH)
    estimate = implicit(solver)
    torch.testing.assert_close(estimate.loss, loss, rtol=1e-12, atol=0)
    assert relative_difference(estimate.gradient.init, gradient.init) < 1e-9
    assert relative_difference(estimate.gradient.shared, gradient.shared) < 1e-9
    assert estimate.diagnostics["inner_gradient"] < 1e-10
    assert estimate.diagnostics["residual"] < 1e-9


class Rotation(torch.nn.Module):
    """A complex linear map, whose parameters are complex or pairs of real numbers."""

    def __init__(self, is_real):
        super().__init__()
        pairs = draw(2, 3, 2)
        self.weight = torch.nn.Parameter(pairs if is_real else torch.view_as_complex(pairs))

    def forward(self, x):
        weight = self.weight if self.weight.is_complex() else torch.view_as_complex(self.weight)
        return x @ weight.mT


def strange(output, y):
    """No analytic function, so that the Hessian is linear over the real numbers alone."""
    return (output - y).abs().square().mean() + 0.3 * output.real.square().mean()


class Shrunk(torch.nn.Module):
    """The same with a penalty whose weight is learned."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.3).double())

    def forward(self, output, y):
        return strange(output, y) + self.weight * output.imag.square().mean()


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}], ids=str)
@pytest.mark.parametrize("strength", [0.0, 2.0])
@pytest.mark.parametrize(
    "solver", [outer.Direct(), outer.CG(3), outer.Neumann(5, rate=0.1)], ids=str
)
@pytest.mark.filterwarnings("ignore:.*at its first call, where 0 is exact")
def test_complex_parameters_are_pairs_of_real_ones(solver, strength, options):
    x, y = (torch.view_as_complex(draw(2, 7, size, 2)) for size in (3, 2))
    episodes = Episode(Batch(x[:, :4], y[:, :4]), Batch(x[:, 4:], y[:, 4:]))
    estimator = outer.Implicit(strength, solver)
    gradients = []
    for is_real in (True, False):
        learner = outer.MetaLearner(
            Rotation(is_real),
            strange,
            inner.SGD(0.1),
            num_steps=3,
            support_criterion=Shrunk(),
            learn_init=strength > 0,
            estimator=estimator,
            **options,
        )
        gradients.append(learner.estimate(episodes, keys(2)).gradient)
    pairs, numbers = gradients
    assert relative_difference(numbers.shared, pairs.shared) < 1e-12
    torch.testing.assert_close(
        numbers.init["weight"], torch.view_as_complex(pairs.init["weight"]), rtol=1e-10, atol=1e-14
    )


def test_the_systems_strength_counts_for_shared_parameters_too():
    """Against the linear system written out, at the parameters that the steps lead to."""
    strength = 12.0
    estimate = implicit(outer.Direct(), num_steps=4, system_strength=strength)
    problem = Problem(Proximal(ridge, META.init, STRENGTH), on_query, inner.SGD(0.1), 4)
    w = inner.adapt(problem, META, EPISODE, torch.tensor(0)).params["w"]

    def slope(w, log_decay):
        return torch.func.grad(lambda w: ridge({"w": w}, {"log_decay": log_decay}, EPISODE, 0))(w)

    hessian, mixed = torch.func.jacrev(slope, (0, 1))(w, META.shared["log_decay"])
    target = torch.func.grad(lambda w: on_query({"w": w}, {}, EPISODE))(w)
    v = torch.linalg.solve(torch.eye(4).double() + hessian / strength, target)
    assert relative_difference(estimate.gradient.init["w"], v) < 1e-9
    assert (
        relative_difference(estimate.gradient.shared["log_decay"], -mixed.T @ v / strength) < 1e-9
    )


def test_is_the_limit_of_unrolling():
    """With the anchor as a shared parameter, Unrolled sees the same inner problem."""

    def anchored(params, shared, episode, step):
        distance = (params["w"] - shared["anchor"]).square().sum()
        return ridge(params, shared, episode, step) + 0.5 * STRENGTH * distance

    meta = META._replace(shared={**META.shared, "anchor": META.init["w"]})
    unrolled = outer.meta_gradient(anchored, on_query, inner.SGD(0.1), outer.Unrolled(), 1000)
    gradient = unrolled(meta, EPISODE, torch.tensor(0)).gradient
    estimate = implicit(outer.Direct())
    assert relative_difference(gradient.shared["anchor"], estimate.gradient.init["w"]) < 1e-8
    assert (
        relative_difference(gradient.shared["log_decay"], estimate.gradient.shared["log_decay"])
        < 1e-8
    )
    assert gradient.init["w"].norm() < 1e-10


def test_any_rule_finds_the_solution():
    sgd = implicit(outer.Direct())
    gradient = outer.meta_gradient(
        ridge, on_query, inner.Momentum(0.05, 0.5), outer.Implicit(STRENGTH, outer.Direct()), 500
    )
    momentum = gradient(META, EPISODE, torch.tensor(0))
    assert relative_difference(momentum.gradient, sgd.gradient) < 1e-8


def test_diagnostics_fall_with_accuracy():
    few, many = (implicit(outer.CG(1), num_steps=n).diagnostics["inner_gradient"] for n in (1, 20))
    assert 1 > few > 10 * many
    few, many = (implicit(outer.CG(n)).diagnostics["residual"] for n in (1, 3))
    assert 1 > few > 3 * many


def test_of_the_authors_code():
    """All steps but the last are free of the distance, which the last one alone descends."""
    rate, steps = 0.1, 5
    estimate = implicit(
        outer.CG(6, damping=1.0), num_steps=steps + 1, proximal="last_step", system_strength=15.0
    )
    w = META.init["w"]
    for _ in range(steps):
        w = w - rate * torch.func.grad(lambda w: ridge({"w": w}, META.shared, EPISODE, 0))(w)
    w = w - rate * STRENGTH * (w - META.init["w"])
    hessian = torch.func.hessian(lambda w: ridge({"w": w}, META.shared, EPISODE, 0))(w)
    target = torch.func.grad(lambda w: on_query({"w": w}, {}, EPISODE))(w)
    expected = torch.linalg.solve(2 * torch.eye(4).double() + hessian / 15, target)
    torch.testing.assert_close(estimate.gradient.init["w"], expected, rtol=1e-9, atol=1e-12)


def test_the_distance_acts_in_adapt_too(episodes):
    moved = []
    for estimator in (outer.Unrolled(), outer.Implicit(50.0)):
        learner = sine_learner(estimator=estimator)
        adapted = learner.adapt(episodes.support).params
        moved.append(
            sum((adapted[name] - start).square().sum() for name, start in learner.meta.init.items())
        )
    assert moved[1] < 0.9 * moved[0]


def test_loss_is_that_of_adapt(episodes):
    learner = sine_learner(estimator=outer.Implicit(50.0), num_steps=30)
    losses = learner.adapt(episodes.support).loss(episodes.query)
    torch.testing.assert_close(learner.estimate(episodes, keys()).loss, losses, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:.*inner_gradient")
def test_uses_the_whole_support_set(episodes):
    """In parts the steps see mini-batches, and the curvature is that of all of them."""
    estimates = [
        sine_learner(
            inner.SGD(1e-14), estimator=outer.Implicit(5.0, outer.Direct()), support_batches=parts
        ).estimate(episodes, keys())
        for parts in (None, 5)
    ]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) < 1e-9


def test_memory_does_not_grow_with_the_steps():
    many, peaks = sine_episodes(num_tasks=4, k_shot=32), []
    for num_steps in (5, 25):
        learner = sine_learner(num_steps=num_steps, estimator=outer.Implicit(5.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learner.estimate(many)
        peaks.append(testing.peak_live_bytes(lambda learner=learner: learner.estimate(many)))
    assert peaks[1] <= 1.02 * peaks[0]


def test_warns_once_of_an_inner_problem_that_is_not_solved(episodes):
    learner = sine_learner(inner.SGD(1e-5), estimator=outer.Implicit(2.0, outer.Direct()))
    with pytest.warns(
        UserWarning, match="inner_gradient = 1 at its first call, where 0 is exact. Take more inner"
    ):
        learner(episodes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(episodes)


@pytest.mark.parametrize("rate", [1.0, 1e6])
def test_warns_of_an_inner_loop_that_diverges(rate, episodes):
    learner = sine_learner(inner.SGD(rate), estimator=outer.Implicit(2.0), num_steps=16)
    with pytest.warns(UserWarning, match="inner_gradient|residual") as warned:
        learner(episodes)
    assert "inner_gradient" in str(warned[0].message)
    assert "Take a smaller rate." in str(warned[0].message)


@pytest.mark.filterwarnings("ignore:Implicit")
def test_losses_see_steps_of_the_inner_loop_alone(episodes):
    seen = []

    def support_loss(params, shared, episode, step):
        seen.append(step)
        return (
            ((episode.support.x[step] * params["0.weight"]).sum() - episode.support.y[step])
            .square()
            .sum()
        )

    learner = sine_learner(support_loss=support_loss, estimator=outer.Implicit(50.0), num_steps=3)
    learner.estimate(episodes)
    assert set(seen) == {0, 1, 2}


def test_warns_of_a_system_that_is_not_solved(episodes):
    learner = sine_learner(estimator=outer.Implicit(0.5, outer.CG(1)), num_steps=200)
    with pytest.warns(UserWarning, match="residual"):
        learner(episodes)


def test_learns_a_representation_and_an_inner_loss(episodes):
    """Gradients to what is shared equal finite differences of the solved problem."""

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, output, target):
            return self.log_scale.exp() * F.mse_loss(output, target)

    learner = outer.MetaLearner(
        models.mlp(1, [6, 6], 1).double(),
        F.mse_loss,
        inner.SGD(0.05),
        num_steps=600,
        fast="4",
        estimator=outer.Implicit(1.0, outer.Direct()),
        support_criterion=Loss(),
    )
    one = task(episodes, slice(0, 1))
    gradient = learner.estimate(one).gradient.shared
    for name in ("support_criterion.log_scale", "model.2.weight"):
        param = dict(learner.named_parameters())[name]
        direction = torch.ones_like(param)
        start = param.detach().clone()

        def loss(value, param=param):
            param.data.copy_(value)
            return learner.adapt(one.support).loss(one.query)[0]

        expected = testing.finite_difference(loss, start, direction, 1e-4)
        param.data.copy_(start)
        torch.testing.assert_close(gradient[name].sum(), expected, rtol=1e-5, atol=1e-8)


@dataclass(frozen=True)
class Decayed(inner.UpdateRule):
    """Gradient descent with weight decay."""

    lr: float
    decay: float

    def update(self, meta, grads, state, params, loss, step):
        return {
            name: -self.lr * (grad + self.decay * params[name]) for name, grad in grads.items()
        }, state


@pytest.mark.parametrize(
    "estimator", [outer.Implicit(2.0), outer.ClipPerTask(outer.Implicit(2.0), 1.0)]
)
def test_refuses_a_rule_that_moves_on_at_the_solution(estimator):
    for start in (1.0, 0.0):
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, start)
        message = (
            "must rest where the gradient is zero; got Decayed.*, whose update there is not zero. "
            "Put a penalty"
        )
        with pytest.raises(ValueError, match=message):
            outer.MAML(model, F.mse_loss, Decayed(0.1, 0.01), num_steps=3, estimator=estimator)
    assert outer.MAML(model, F.mse_loss, Decayed(0.1, 0.0), num_steps=3, estimator=estimator)


@pytest.mark.parametrize(
    "rule",
    [
        inner.SGD(0.1),
        inner.Momentum(0.1),
        inner.Nesterov(0.1),
        inner.Adam(0.1),
        inner.RMSProp(0.1),
        inner.Clipped(inner.SGD(0.1), value=1.0),
        inner.Clipped(inner.Adam(0.1), norm=1.0),
    ],
    ids=str,
)
def test_takes_rules_that_rest(rule):
    for dtype in (torch.float64, torch.bfloat16):
        assert outer.IMAML(models.mlp(1, [4], 1).to(dtype), F.mse_loss, rule, num_steps=3)
    assert outer.IMAML(models.mlp(1, [4], 1).to("meta"), F.mse_loss, rule, num_steps=3)


def test_decay_in_the_support_loss_is_exact():
    """The same solution as of the rule that decays, with the gradient that belongs to it."""
    decay = 0.3

    def decayed(params, shared, episode, step):
        return ridge(params, shared, episode, step) + 0.5 * decay * params["w"].square().sum()

    def adapted(init):
        meta, rule = Meta({"w": init}, META.shared, {}), Decayed(0.1, decay)
        support_loss = Proximal(ridge, meta.init, STRENGTH)
        problem = Problem(support_loss, on_query, rule, 1000)
        return on_query(inner.adapt(problem, meta, EPISODE, torch.tensor(0)).params, {}, EPISODE)

    estimator = outer.Implicit(STRENGTH, outer.Direct())
    gradient = outer.meta_gradient(decayed, on_query, inner.SGD(0.1), estimator, 1000)
    estimate = gradient(META, EPISODE, torch.tensor(0))
    expected = torch.func.grad(adapted)(META.init["w"])
    assert relative_difference(estimate.gradient.init["w"], expected) < 1e-8


class TestWithoutADistance:
    @pytest.mark.parametrize(
        "solver", [outer.Direct(), outer.CG(4), outer.Neumann(300, rate=RATE)], ids=str
    )
    def test_equals_the_closed_form(self, solver):
        estimate = estimate_of(outer.Implicit(0.0, solver), 500)
        torch.testing.assert_close(estimate.loss, closed_form()[1], rtol=1e-12, atol=0)
        assert error(estimate) < 1e-9
        assert not estimate.gradient.init["w"].any()
        assert estimate.diagnostics["residual"] < 1e-9

    def test_of_the_system_alone(self):
        """Drawn to the start, and the Hessian as it is."""
        estimate = estimate_of(outer.Implicit(STRENGTH, outer.Direct(), system_strength=0.0), 7)
        w = estimate.params["w"]

        def slope(w, log_decay):
            return torch.func.grad(lambda w: ridge({"w": w}, {"log_decay": log_decay}, EPISODE, 0))(
                w
            )

        hessian, mixed = torch.func.jacrev(slope, (0, 1))(w, META.shared["log_decay"])
        target = torch.func.grad(lambda w: on_query({"w": w}, {}, EPISODE))(w)
        expected = -mixed.T @ torch.linalg.solve(hessian, target)
        assert relative_difference(estimate.gradient.shared["log_decay"], expected) < 1e-9

    def test_adapts_freely(self, episodes):
        adapted, freely = (
            sine_learner(estimator=estimator, learn_init=learn_init).adapt(episodes.support).params
            for estimator, learn_init in ((outer.Implicit(0.0), False), (outer.Unrolled(), True))
        )
        assert relative_difference(adapted, freely) < 1e-12

    def test_says_what_it_reaches(self):
        assert outer.Implicit(0.0).reaches == {"shared"}
        assert outer.Implicit(0.0, system_strength=1.0).reaches == {"shared"}
        assert outer.Implicit(1.0, system_strength=0.0).reaches == {"shared"}
        assert outer.Implicit(1.0).reaches == {"init", "shared"}
        with pytest.raises(ValueError, match="reaches shared only. Use .* or learn_init=False"):
            sine_learner(estimator=outer.Implicit(0.0))


class TestFiniteDifferences:
    @pytest.mark.parametrize("solver", [outer.Neumann(300, RATE), outer.CG(4)], ids=str)
    @pytest.mark.parametrize("epsilon", [1e-3, 0.5])
    def test_are_exact_where_the_loss_is_quadratic(self, solver, epsilon):
        estimate = estimate_of(outer.Implicit(0.0, solver, epsilon=epsilon), 500)
        assert error(estimate) < 1e-9

    @pytest.mark.parametrize("strength", [0.0, STRENGTH])
    def test_have_an_error_of_second_order(self, strength):
        exact, *coarse_to_fine = (
            estimate_of(outer.Implicit(strength, outer.CG(4), epsilon=e), 50, support_loss=curved)
            for e in (None, 0.1, 0.05, 0.025)
        )
        errors = [
            relative_difference(each.gradient.shared, exact.gradient.shared)
            for each in coarse_to_fine
        ]
        assert 3.8 < errors[0] / errors[1] < 4.2
        assert 3.9 < errors[1] / errors[2] < 4.1

    def test_of_no_gradient_are_zero(self):
        """A query loss that is minimal where the inner loop ends has no direction to step in."""

        def nothing(params, shared, episode):
            return 0 * params["w"].sum()

        estimator = outer.Implicit(0.0, outer.CG(2), epsilon=0.01)
        gradient = outer.meta_gradient(ridge, nothing, inner.SGD(RATE), estimator, 3)
        assert not gradient(META, EPISODE, torch.tensor(0)).gradient.shared["log_decay"].any()


ONE_STEP_EACH = [outer.CG(1), outer.Neumann(1, RATE)]


class TestWarmStart:
    @pytest.mark.parametrize("epsilon", [None, 0.01])
    @pytest.mark.parametrize("solver", [*ONE_STEP_EACH, outer.CG(3)], ids=str)
    def test_of_few_steps_converges_to_the_closed_form(self, solver, epsilon):
        estimator = outer.Implicit(0.0, solver, epsilon=epsilon, warm_start=True)
        first, _ = run_on(outer.Continued(estimator), 1, 1)
        last, _ = run_on(outer.Continued(estimator), 1, 250)
        assert error(first) > 0.1
        assert error(last) < 1e-9
        assert last.diagnostics["inner_gradient"] < 1e-9
        assert last.diagnostics["residual"] < 1e-9

    def test_near_the_start_too(self):
        estimator = outer.Implicit(STRENGTH, outer.CG(1), warm_start=True)
        gradient = outer.meta_gradient(
            ridge, on_query, inner.SGD(0.1), outer.Continued(estimator), 1
        )
        carry, expected = None, closed_form(STRENGTH)[0]
        for _ in range(60):
            estimate = gradient(META, EPISODE, torch.tensor(0), carry)
            carry = estimate.carry
        assert relative_difference(estimate.gradient.init, expected.init) < 1e-9
        assert relative_difference(estimate.gradient.shared, expected.shared) < 1e-9

    @pytest.mark.parametrize("solver", ONE_STEP_EACH, ids=str)
    def test_without_it_one_step_of_the_solver_stays_wrong(self, solver):
        last, _ = run_on(outer.Continued(outer.Implicit(0.0, solver)), 1, 250)
        assert error(last) > 0.05
        assert last.diagnostics["inner_gradient"] < 1e-9

    @pytest.mark.parametrize("solver", ONE_STEP_EACH, ids=str)
    def test_a_single_loop_finds_the_best_penalty(self, solver):
        """One step each of parameters, system and penalty at a time."""
        estimator = outer.Continued(outer.Implicit(0.0, solver, warm_start=True))
        _, meta = run_on(estimator, 1, 800, lr=0.5, meta=ONE_PENALTY)
        gradient, loss = closed_form(meta=meta)
        assert gradient.shared["log_decay"].abs().item() < 1e-9
        assert loss < closed_form(meta=ONE_PENALTY)[1] - 1e-3

    def test_reaches_the_start_at_any_age_if_drawn_to_it(self):
        assert outer.Continued(outer.Implicit(1.0)).reaches == {"init", "shared"}
        assert outer.Continued(outer.ClipPerTask(outer.Implicit(1.0), 1.0)).reaches == {
            "init",
            "shared",
        }
        assert outer.Continued(outer.Implicit(0.0)).reaches == {"shared"}
        assert outer.Continued(outer.Unrolled()).reaches == {"shared", "rule"}

    def test_is_not_doubted_for_what_it_will_mend(self, episodes):
        options = {"rule": inner.SGD(1e-5), "num_steps": 1}
        estimator = outer.Implicit(0.5, outer.CG(1), warm_start=True)
        with pytest.warns(UserWarning, match="inner_gradient = 1 .*outer.Continued") as warned:
            sine_learner(estimator=estimator, **options)(episodes)
        assert len(warned) == 1  # and none of the residual
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sine_learner(estimator=outer.Continued(estimator), **options)(episodes)


class TestTolerance:
    RULES = (inner.SGD(RATE), inner.Momentum(0.1), inner.Adam(0.05))

    @pytest.mark.parametrize("rule", RULES, ids=str)
    def test_stops_at_the_first_step_that_is_close_enough(self, rule):
        """By a loop that stops for itself."""
        estimator = outer.Implicit(STRENGTH, outer.CG(4), tolerance=0.03)
        estimate = estimate_of(estimator, 200, rule)
        params, state = META.init, rule.init_state({}, META.init, torch.tensor(0))

        def loss(w):
            distance = (w - META.init["w"]).square().sum()
            return ridge({"w": w}, META.shared, EPISODE, 0) + 0.5 * STRENGTH * distance

        first, count = torch.func.grad(loss)(params["w"]).norm(), 0
        while (grad := torch.func.grad(loss)(params["w"])).norm() > 0.03 * first:
            update = rule.update({}, {"w": grad}, state, params, loss(params["w"]), count)
            params, state, count = {"w": params["w"] + update[0]["w"]}, update[1], count + 1
        assert 1 < count < 200
        assert estimate.diagnostics["num_steps"] == count
        ended = estimate.params, estimate.state
        assert relative_difference(ended, (params, state)) < 1e-12
        assert estimate.diagnostics["inner_gradient"] <= 0.03

    def test_of_no_step_left_is_no_stop(self):
        stopped, free = (
            estimate_of(outer.Implicit(STRENGTH, outer.CG(4), tolerance=tolerance), 3)
            for tolerance in (1e-6, None)
        )
        assert relative_difference(stopped.gradient, free.gradient) == 0
        assert stopped.diagnostics["num_steps"] == free.diagnostics["num_steps"] == 3

    def test_bounds_the_distance_to_the_solution(self):
        """By the strong convexity that the paper's delta rests on."""
        solution = estimate_of(outer.Implicit(STRENGTH), 500).params["w"]
        slope = torch.func.grad(lambda w: ridge({"w": w}, META.shared, EPISODE, 0))
        for tolerance in (0.3, 0.01, 1e-4):
            estimate = estimate_of(outer.Implicit(STRENGTH, tolerance=tolerance), 200)
            delta = tolerance * slope(META.init["w"]).norm() / STRENGTH
            assert 0 < (estimate.params["w"] - solution).norm() <= delta

    def test_bounds_the_error_of_the_gradient(self):
        """With both tolerances, as the paper's theorem 1: it falls with them."""
        exact = estimate_of(outer.Implicit(STRENGTH, outer.Direct()), 500)
        errors, counts = [], []
        for tolerance in (1e-1, 1e-2, 1e-3):
            solver = outer.CG(10, tolerance=tolerance)
            estimate = estimate_of(outer.Implicit(STRENGTH, solver, tolerance=tolerance), 500)
            errors.append(relative_difference(estimate.gradient.init, exact.gradient.init))
            counts.append(estimate.diagnostics["num_steps"].item())
            assert estimate.diagnostics["residual"] <= tolerance
            assert estimate.diagnostics["solver_steps"] <= 4
        assert errors[0] > 4 * errors[1] > 16 * errors[2] > 0
        assert counts == sorted(counts)

    def test_every_task_stops_for_itself(self, episodes):
        options = {"tolerance": 0.3, "solver": outer.CG(5, tolerance=0.1)}
        learner = sine_learner(estimator=outer.Implicit(2.0, **options), num_steps=60)
        together = learner.estimate(episodes, keys())
        counts = together.diagnostics["num_steps"]
        assert len(set(counts.tolist())) == 3
        adapted = learner.adapt(episodes.support, keys=keys())
        for index in range(3):
            one = take(episodes, slice(index, index + 1))
            alone = learner.estimate(one, keys()[index : index + 1])
            for name, value in alone.diagnostics.items():
                torch.testing.assert_close(value[0], together.diagnostics[name][index])
            count = alone.diagnostics["num_steps"].item()
            learner_of_count = sine_learner(estimator=outer.Implicit(2.0), num_steps=count)
            expected = learner_of_count.adapt(one.support).params
            found = take(adapted.params, slice(index, index + 1))
            assert relative_difference(found, expected) < 1e-12

    WAYS = ({"batching": "loop"}, {"chunk_size": 2}, {"compile": {"backend": "eager"}})

    @pytest.mark.parametrize("options", WAYS, ids=str)
    def test_all_ways_of_running_agree(self, options, episodes):
        estimator = outer.Implicit(2.0, outer.CG(4, tolerance=0.1), tolerance=0.3)
        learner = sine_learner(estimator=estimator, num_steps=8)
        expected = learner.estimate(episodes, keys())
        learner.set_batching(**options)
        found = learner.estimate(episodes, keys())
        assert relative_difference(found.gradient, expected.gradient) < 1e-9
        assert torch.equal(found.diagnostics["num_steps"], expected.diagnostics["num_steps"])

    def test_a_window_of_a_solved_problem_takes_no_step(self):
        estimator = outer.Continued(outer.Implicit(STRENGTH, outer.CG(4), tolerance=1e-3))
        first, _ = run_on(estimator, 200, 1)
        second, _ = run_on(estimator, 200, 2)
        assert first.diagnostics["num_steps"] > 0
        assert second.diagnostics["num_steps"] == 0
        assert relative_difference(second.params, first.params) == 0

    def test_a_diverging_task_goes_on(self):
        estimate = estimate_of(outer.Implicit(STRENGTH, tolerance=0.1), 600, inner.SGD(10.0))
        assert estimate.diagnostics["num_steps"] == 600
        assert not estimate.loss.isfinite()

    def test_excludes_a_step_of_the_distance_alone(self):
        with pytest.raises(ValueError, match='tolerance with proximal="last_step" must be None'):
            outer.Implicit(2.0, proximal="last_step", tolerance=0.1)
        with pytest.raises(ValueError, match="tolerance must be positive"):
            outer.Implicit(2.0, tolerance=0.0)
