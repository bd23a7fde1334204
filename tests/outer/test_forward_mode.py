"""Forward mode against reverse mode, and its online form against restarts."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from metalearn import inner, models, outer, testing
from tests.cases import RandomMask, keys, relative_difference, sine_episodes, sine_learner, task

RULES = [
    inner.SGD(0.01),
    inner.LearnedRate(inner.Momentum(0.01), num_steps=2),
    inner.Learned(inner.RMSProp(0.01, eps=1e-3), ("lr", "alpha")),
    inner.LSTM(hidden_size=2, lr=0.01),
    inner.LearnedRate(
        inner.Turtle(("grad", "grad_history", "loss"), hidden=(3,), beta=0.5), per="tensor"
    ),
    inner.SelfAdapting(inner.LearnedRate(inner.SGD(0.01)), lr=0.01),
    inner.Turtle(hidden=(3,), lr=0.01),
    inner.KroneckerNetwork(0.01),
    inner.Masked(inner.Adam(0.01, eps=1e-3)),
    RandomMask(0.01),
]


class Decay(torch.nn.Module):
    """A support criterion with a learned weight, as a regulariser has."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.7, 0.2], dtype=torch.float64))
        self.scale = torch.nn.Parameter(torch.tensor(1.1, dtype=torch.float64))

    def forward(self, output, target):
        mean_square = output.square().mean()
        return self.scale * (
            self.weight[0] * F.mse_loss(output, target) + self.weight[1] * mean_square
        )


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("fast", ["*", "4"])
def test_equals_reverse_mode(rule, fast, episodes):
    estimates = [
        sine_learner(
            rule, fast=fast, estimator=estimator, support_criterion=Decay(), num_steps=4
        ).estimate(episodes, keys())
        for estimator in (outer.Unrolled(), outer.ForwardMode(max_directions=1000))
    ]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) < 1e-10
    torch.testing.assert_close(estimates[0].loss, estimates[1].loss, rtol=1e-10, atol=0)


def hyperparameters(estimator, num_steps, **options):
    rule = inner.Learned(inner.Momentum(0.01), ("lr", "momentum"))
    return sine_learner(rule, learn_init=False, estimator=estimator, num_steps=num_steps, **options)


def test_a_fixed_start_costs_no_directions(episodes):
    exact, ours = (
        hyperparameters(estimator, 4).estimate(episodes, keys())
        for estimator in (outer.Unrolled(), outer.ForwardMode(max_directions=2))
    )
    assert relative_difference(exact.gradient.rule, ours.gradient.rule) < 1e-10
    assert not any(leaf.any() for leaf in ours.gradient.init.values())


def test_memory_does_not_grow_with_the_steps():
    many, peaks = sine_episodes(num_tasks=4, k_shot=32), []
    for num_steps in (3, 12):
        learner = hyperparameters(outer.ForwardMode(), num_steps)
        learner.estimate(many)
        peaks.append(testing.peak_live_bytes(partial(learner.estimate, many)))
    assert peaks[1] <= 1.02 * peaks[0]


def test_refuses_many_directions():
    message = (
        "learned numbers must be at most 10 for forward mode; got 61. "
        ".*Stepwise.*max_directions=61 if you mean"
    )
    with pytest.raises(ValueError, match=message):
        sine_learner(estimator=outer.ForwardMode(10))


class TestOnline:
    def test_goes_on_where_it_stopped(self, episodes):
        """With constant hyperparameters three meta-steps of two inner steps end as one of six."""
        one = task(episodes, slice(0, 1))
        online = hyperparameters(outer.OnlineForwardMode(), 2)
        for _ in range(3):
            estimate = online.estimate(one)
            online.carry.keep(estimate.carry)
        whole = hyperparameters(outer.ForwardMode(), 6).estimate(one)
        assert relative_difference(estimate.gradient.rule, whole.gradient.rule) < 1e-10
        torch.testing.assert_close(estimate.loss, whole.loss, rtol=1e-12, atol=0)

    def test_trains_a_rate_during_one_run(self, episodes):
        one = task(episodes, slice(0, 1))
        rule = inner.LearnedRate(inner.SGD(0.001))
        learner = sine_learner(
            rule, learn_init=False, estimator=outer.OnlineForwardMode(), num_steps=1
        )
        optimizer = torch.optim.Adam(learner.parameters(), lr=2e-4)
        for _ in range(60):
            loss = learner(one)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        constant = sine_learner(rule, num_steps=60).adapt(one.support).loss(one.query)
        assert loss.item() < 0.9 * constant.item()

    def test_the_run_survives_state_dict_and_starts_anew(self, episodes):
        one = task(episodes, slice(0, 1))
        first, other = (hyperparameters(outer.OnlineForwardMode(), 2) for _ in range(2))
        losses = [first(one).item() for _ in range(3)]
        other.load_state_dict(first.state_dict())
        assert other(one).item() == first(one).item() != losses[0]
        first.carry.reset()
        assert first(one).item() == losses[0]

    @pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
    def test_every_task_has_a_run_of_its_own(self, options, episodes):
        together = hyperparameters(outer.OnlineForwardMode(), 2, **options)
        alone = [hyperparameters(outer.OnlineForwardMode(), 2) for _ in range(3)]
        for _ in range(3):
            estimate = together.estimate(episodes, keys())
            together.carry.keep(estimate.carry)
            each = []
            for index, learner in enumerate(alone):
                one = slice(index, index + 1)
                each.append(learner.estimate(task(episodes, one), keys()[one]))
                learner.carry.keep(each[-1].carry)
        rates = torch.stack([one.gradient.rule["lr"] for one in each])
        torch.testing.assert_close(estimate.gradient.rule["lr"], rates.mean(0), rtol=1e-9, atol=0)
        torch.testing.assert_close(estimate.loss, torch.cat([one.loss for one in each]))

    def test_runs_of_another_number_of_tasks_are_refused(self, episodes):
        learner = hyperparameters(outer.OnlineForwardMode(), 2)
        learner(episodes)
        with pytest.raises(ValueError, match="that go on must be 3 tasks; got 1. Pass as many"):
            learner(task(episodes, slice(0, 1)))
        learner.carry.reset()
        learner(task(episodes, slice(0, 1)))

    def test_a_run_that_diverges_stays_where_it_was(self, episodes):
        learner = hyperparameters(outer.OnlineForwardMode(), 2)
        learner(episodes)
        before = learner.carry.value.own.params["0.weight"].clone()
        episodes.support.y[1] = torch.nan
        learner(episodes)
        after = learner.carry.value.own.params["0.weight"]
        assert torch.equal(after[1], before[1])
        assert not torch.equal(after[0], before[0])

    def test_runs_are_no_buffers_that_processes_share(self, episodes):
        learner = hyperparameters(outer.OnlineForwardMode(), 2)
        learner(episodes)
        assert not [name for name, _ in learner.named_buffers() if "carry" in name]
        assert any(name.startswith("carry.own.params") for name in learner.state_dict())
        learner.float()
        assert learner.carry.value.own.params["0.weight"].dtype == torch.float32

    def test_does_not_learn_a_start(self):
        with pytest.raises(
            ValueError, match="reaches rule, shared only. Use .* or learn_init=False"
        ):
            sine_learner(estimator=outer.OnlineForwardMode())

    def test_a_penalty_may_start_without_a_slope(self):
        """The start is zero, so that the first step's derivative by the penalty is zero."""

        class Penalised(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.log_decay = torch.nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

            def forward(self, params, shared, episode, step):
                squares = (
                    (episode.support.x @ params["weight"].T - episode.support.y).square().mean()
                )
                return squares + self.log_decay.exp() * params["weight"].square().sum()

        model = torch.nn.Linear(1, 1, bias=False).double()
        torch.nn.init.zeros_(model.weight)
        options = {"num_steps": 1, "learn_init": False, "estimator": outer.OnlineForwardMode()}
        learner = outer.MetaLearner(
            model, F.mse_loss, inner.SGD(0.01), support_loss=Penalised(), **options
        )
        one, slopes = task(sine_episodes(), slice(0, 1)), []
        for _ in range(2):
            learner.zero_grad()
            learner(one).backward()
            slopes.append(learner.support_loss.log_decay.grad.item())
        assert slopes[0] == 0 != slopes[1]
        assert learner.carry.value.own.params["weight"].any()


def test_compiles_whole(episodes):
    eager, compiled = (
        hyperparameters(outer.ForwardMode(), 2, compile=options).estimate(episodes, keys())
        for options in (False, {"backend": "eager", "fullgraph": True})
    )
    assert relative_difference(eager.gradient.rule, compiled.gradient.rule) < 1e-12


def test_complex_parameters_are_refused():
    model = torch.nn.Linear(1, 1, dtype=torch.complex128)
    with pytest.raises(TypeError, match="parameters must be real for forward mode"):
        outer.MetaLearner(
            model, F.mse_loss, inner.SGD(0.1), num_steps=1, estimator=outer.ForwardMode()
        )


def test_through_losses_whose_jvp_fails(episodes):
    torch.manual_seed(0)
    model = models.mlp(1, [6], 1).double()
    rule = inner.LearnedRate(inner.SGD(0.01), per="tensor")
    estimates = [
        outer.MetaLearner(model, F.huber_loss, rule, num_steps=3, estimator=estimator).estimate(
            episodes, keys()
        )
        for estimator in (outer.ForwardMode(), outer.Unrolled())
    ]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) < 1e-10
