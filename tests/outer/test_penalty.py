"""The penalty's gradient against closed forms, and the order of its error."""

import warnings

import pytest
import torch

from metalearn import inner, outer
from metalearn.types import Meta
from tests.cases import keys, relative_difference, sine_learner
from tests.outer.ridge import (
    EPISODE,
    META,
    ONE_PENALTY,
    RATE,
    closed_form,
    error,
    estimate_of,
    on_query,
    ridge,
    run_on,
)


def minimum(weight):
    """Return the minimum of the support loss, plus the query loss / weight if one is given."""
    (x, y, _), (query_x, query_y, _) = EPISODE
    matrix = x.T @ x / len(x) + torch.diag(META.shared["log_decay"].exp())
    target = x.T @ y / len(x)
    if weight is not None:
        matrix = matrix + query_x.T @ query_x / len(query_x) / weight
        target = target + query_x.T @ query_y / len(query_x) / weight
    return torch.linalg.solve(matrix, target)


@pytest.mark.parametrize("weight", [0.5, 10.0, 1e3])
def test_equals_its_definition_in_closed_form(weight):
    def slope(w):
        return 0.5 * META.shared["log_decay"].exp() * w.square()

    estimate = estimate_of(outer.Penalty(weight), 1000)
    y, z = minimum(weight), minimum(None)
    expected = weight * (slope(y) - slope(z))
    torch.testing.assert_close(estimate.gradient.shared["log_decay"], expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(estimate.params["w"], z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(estimate.loss, closed_form()[1], rtol=1e-12, atol=0)
    assert not estimate.gradient.init["w"].any()


def test_its_error_falls_with_the_weight():
    errors = [error(estimate_of(outer.Penalty(weight), 1000)) for weight in (1e2, 1e3, 1e4)]
    assert 9 < errors[0] / errors[1] < 11
    assert 9.9 < errors[1] / errors[2] < 10.1
    assert errors[2] < 2e-4


@pytest.mark.parametrize("rule", [inner.Momentum(0.1, 0.8), inner.Nesterov(0.05, 0.8)], ids=str)
def test_any_rule_finds_the_solutions(rule):
    sgd, other = (estimate_of(outer.Penalty(10.0), 1000, each) for each in (None, rule))
    assert relative_difference(other.gradient.shared, sgd.gradient.shared) < 1e-9


def test_of_what_is_shared_with_the_query_loss_too():
    """The query loss's own slope is that at the penalised minimum."""

    def shifted(params, shared, episode):
        return on_query({"w": params["w"] + shared["log_decay"]}, shared, episode)

    gradient = outer.meta_gradient(ridge, shifted, inner.SGD(RATE), outer.Penalty(1e4), 1000)
    ours = gradient(META, EPISODE, torch.tensor(0)).gradient.shared
    exact = outer.meta_gradient(
        ridge, shifted, inner.SGD(RATE), outer.Implicit(0.0, outer.Direct()), 1000
    )
    expected = exact(META, EPISODE, torch.tensor(0)).gradient.shared
    assert relative_difference(ours, expected) < 1e-3


def test_of_one_step_it_is_a_one_sided_difference():
    """From a solved problem y is the step -lr / weight dquery, over which OneStep steps too."""
    solved, results = Meta({"w": minimum(None)}, META.shared, {}), []
    for estimator in (outer.Penalty(1e6), outer.OneStep()):
        gradient = outer.meta_gradient(ridge, on_query, inner.SGD(RATE), estimator, 1)
        results.append(gradient(solved, EPISODE, torch.tensor(0)).gradient.shared)
    assert relative_difference(*results) < 1e-5


class TestWarmStart:
    @pytest.mark.parametrize("weight", [10.0, 1e3])
    def test_of_one_step_converges_to_the_solved_penalty(self, weight):
        estimator = outer.Continued(outer.Penalty(weight, warm_start=True))
        first, _ = run_on(estimator, 1, 1)
        last, _ = run_on(estimator, 1, 250)
        solved = estimate_of(outer.Penalty(weight), 1000)
        assert relative_difference(last.gradient.shared, solved.gradient.shared) < 1e-9
        assert relative_difference(first.gradient.shared, solved.gradient.shared) > 0.1

    def test_without_it_y_never_gets_there(self):
        last, _ = run_on(outer.Continued(outer.Penalty(1e3)), 1, 250)
        assert error(last) > 0.1
        assert last.diagnostics["inner_gradient"] < 1e-9
        assert last.diagnostics["residual"] > 0.1

    def test_of_a_problem_that_starts_afresh(self):
        """Without `Continued` only y is carried; what is solved from anywhere is the same."""
        gradient = outer.meta_gradient(
            ridge, on_query, inner.SGD(RATE), outer.Penalty(10.0, warm_start=True), 100
        )
        carry = None
        for _ in range(8):
            last = gradient(META, EPISODE, torch.tensor(0), carry)
            carry = last.carry
        torch.testing.assert_close(carry.own.minimiser["w"], minimum(10.0), rtol=1e-9, atol=1e-12)

    def test_a_single_loop_finds_the_best_penalty(self):
        estimator = outer.Continued(outer.Penalty(1e4, warm_start=True))
        _, meta = run_on(estimator, 1, 800, lr=0.5, meta=ONE_PENALTY)
        gradient, loss = closed_form(meta=meta)
        assert gradient.shared["log_decay"].abs().item() < 1e-4
        assert loss < closed_form(meta=ONE_PENALTY)[1] - 1e-3


def test_diagnostics_fall_with_accuracy():
    few, many = (estimate_of(outer.Penalty(10.0), n).diagnostics for n in (30, 60))
    for name in ("inner_gradient", "residual"):
        assert 1 > few[name] > 5 * many[name]


@pytest.mark.filterwarnings("ignore:.*at its first call")
def test_loss_is_that_of_adapt(episodes):
    learner = sine_learner(fast="4", learn_init=False, estimator=outer.Penalty(10.0), num_steps=9)
    losses = learner.adapt(episodes.support, keys=keys()).loss(episodes.query)
    torch.testing.assert_close(learner.estimate(episodes, keys()).loss, losses, rtol=1e-12, atol=0)


def test_warns_of_what_is_not_solved(episodes):
    options = {"rule": inner.SGD(1e-5), "num_steps": 1, "fast": "4", "learn_init": False}
    with pytest.warns(UserWarning, match="Take more inner steps, or a larger rate") as warned:
        sine_learner(estimator=outer.Penalty(10.0), **options)(episodes)
    assert len(warned) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        going_on = outer.Continued(outer.Penalty(10.0, warm_start=True))
        sine_learner(estimator=going_on, **options)(episodes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: outer.Penalty(0.0),
            ValueError,
            "Penalty's weight must be positive and finite; got 0.0. Write Penalty(100.0), say.",
        ),
        (lambda: outer.Penalty("big"), TypeError, "Penalty's weight must be a number"),
        (lambda: outer.Penalty(1.0, 2), TypeError, "Penalty's warm_start must be True or False"),
        (
            lambda: sine_learner(estimator=outer.Penalty(10.0)),
            ValueError,
            "reaches shared only. Use an estimator that reaches them, as outer.Unrolled() does, or "
            "learn_init=False.",
        ),
        (
            lambda: sine_learner(
                inner.WeightDecay(inner.SGD(0.1), 0.1),
                fast="4",
                learn_init=False,
                estimator=outer.Penalty(10.0),
            ),
            ValueError,
            "must rest where the gradient is zero; got WeightDecay",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
