"""Persistent evolution strategies against a loop by hand, and unbiased where truncation is not."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn as nn

from metalearn import functional, inner, outer
from metalearn._tasks import take
from metalearn._tree import (
    tree_detach,
    tree_filled,
    tree_leaves,
    tree_map,
    tree_names,
    tree_ravel,
)
from metalearn.types import Batch, Episode, Meta, Problem
from tests.cases import keys, relative_difference, sine_learner, task
from tests.outer.cases import assert_same, train, windows

RULE = inner.LearnedRate(inner.Momentum(0.01), per="tensor")
STD = 0.02


def goes_on(estimator=None, rule=RULE, **options):
    estimator = estimator or outer.PersistentES(num_pairs=2, std=STD, horizon=9)
    options = {"fast": ["0", "4"], "learn_init": "4", **options}
    return sine_learner(rule, estimator=estimator, **options)


class ByHand:
    """One problem's runs by plain loops: one that nothing perturbs, and two for each of two
    pairs."""

    def __init__(self, problem, meta):
        self.problem, self.meta, self.runs, self.totals = problem, meta, {}, None

    def window(self, episode, key):
        """Take a window, and return its query loss and gradients in the order of `meta`."""
        starts, noise = not self.runs, self.noise(functional.derive_key(key))
        loss = self.go_on("middle", self.meta, episode, key)
        if starts:
            self.totals = [tree_map(torch.zeros_like, self.meta)] * 2
        else:
            noise = [e._replace(init=tree_map(torch.zeros_like, e.init)) for e in noise]
        gradient = tree_map(torch.zeros_like, self.meta)
        for pair, e in enumerate(noise):
            total = self.totals[pair] = tree_map(torch.add, self.totals[pair], e)
            ahead = tree_map(lambda p, move: p + STD * move, self.meta, e)
            behind = tree_map(lambda p, move: p - STD * move, self.meta, e)
            slope = self.go_on((pair, "ahead"), ahead, episode, key)
            slope = (slope - self.go_on((pair, "behind"), behind, episode, key)) / (2 * STD)
            part = tree_map(lambda move, slope=slope: slope * move / 2, total)
            gradient = tree_map(torch.add, gradient, part)
        return loss, tree_leaves(gradient)

    def noise(self, key):
        """Return the directions of both pairs, zero for starts that are not learned."""
        drawn, streams = [], itertools.count()
        for name, leaf in zip(tree_names(self.meta), tree_leaves(self.meta), strict=True):
            if name.removeprefix("init.") in self.problem.constant:
                drawn.append(torch.zeros(2, *leaf.shape, dtype=leaf.dtype))
            else:
                shape = 2, *leaf.shape
                drawn.append(functional.normal(key, shape, next(streams), dtype=leaf.dtype))
        return [tree_filled(self.meta, [e[pair] for e in drawn]) for pair in range(2)]

    def go_on(self, name, meta, episode, key):
        problem = self.problem
        if name not in self.runs:
            state = problem.rule.init_state(meta.rule, meta.init, key)
            self.runs[name] = meta.init, state
        params, state = self.runs[name]
        for step in range(problem.num_steps):
            leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
            loss = problem.support_loss(leaves, meta.shared, episode, step)
            grads = torch.autograd.grad(loss, list(leaves.values()))
            grads = dict(zip(params, grads, strict=True))
            loss = loss.detach()
            updates, state = problem.rule.update(meta.rule, grads, state, params, loss, step)
            params = {name: param + updates[name] for name, param in params.items()}
        self.runs[name] = params, state
        return problem.query_loss(params, meta.shared, episode)


@torch.no_grad()
def by_hand(learner, episodes_of_windows):
    """Return every window's mean loss and gradient, of three problems with spans 3, 6 and 9."""
    meta, results = tree_detach(learner.meta), []
    runs = [ByHand(learner.problem, meta) for _ in range(3)]
    for number, episodes in enumerate(episodes_of_windows):
        each = []
        for index in range(3):
            if number >= index + 1 and (number - index - 1) % 3 == 0:
                runs[index] = ByHand(learner.problem, meta)
            with torch.enable_grad():
                made = runs[index].window(take(episodes, index), keys()[index] + 100 * number)
            each.append(tree_detach(made))
        losses, gradients = zip(*each, strict=True)
        results.append(
            (sum(losses) / 3, [sum(grads) / 3 for grads in zip(*gradients, strict=True)])
        )
    return results, [run.runs["middle"][0] for run in runs]


@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
def test_windows_equal_a_loop_by_hand(options):
    learner = goes_on(**options)
    expected, params = by_hand(learner, windows(6))
    results = train(learner, windows(6))
    for (loss, grads), (wanted, gradients) in zip(results, expected, strict=True):
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
        assert relative_difference(grads, gradients) < 1e-11
    assert learner.inner_models.age.tolist() == [6, 3, 9]
    for index, wanted in enumerate(params):
        assert relative_difference(take(learner.inner_models.params, index), wanted) < 1e-12


def test_compiled_windows_equal_eager_ones():
    eager = goes_on()
    compiled = copy.deepcopy(eager)
    compiled.set_batching(compile={"backend": "eager"})
    assert_same(train(compiled, windows(4)), train(eager, windows(4)))


def test_replicas_go_on_as_learners_do():
    learners = [goes_on() for _ in range(2)]
    with torch.no_grad():
        learners[1].model[4].bias += 0.1
    replicas = outer.Replicas(learners)
    for number, episodes in enumerate(windows(4)):
        twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
        drawn = keys() + 100 * number
        got = replicas.estimate(twice, drawn.repeat(2)).gradient
        replicas(twice, keys=drawn.repeat(2))
        for index, learner in enumerate(learners):
            wanted = learner.estimate(episodes, drawn).gradient
            assert relative_difference(take(got, index), wanted) < 1e-10
            learner(episodes, keys=drawn)
    assert replicas[1].inner_models.age.tolist() == [9, 6, 3]


def test_a_first_window_is_evolution_strategies(episodes):
    whole = sine_learner(RULE, estimator=outer.EvolutionStrategies(2, STD), learn_init="4")
    window = sine_learner(RULE, estimator=outer.PersistentES(2, STD, 9), learn_init="4")
    expected, got = (each.estimate(episodes, keys()) for each in (whole, window))
    assert relative_difference(got.gradient, expected.gradient) < 1e-12
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-12, atol=0)


def test_inner_models_are_those_that_nothing_perturbs():
    ours, theirs = goes_on(), goes_on(outer.Continued(outer.Unrolled(), horizon=9))
    results, expected = (train(each, windows(4)) for each in (ours, theirs))
    for (loss, _), (wanted, _) in zip(results, expected, strict=True):
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    assert relative_difference(ours.inner_models.params, theirs.inner_models.params) < 1e-12
    assert relative_difference(ours.inner_models.state, theirs.inner_models.state) < 1e-12


def test_a_learned_start_is_perturbed_where_it_acts(episodes):
    learner, totals = goes_on(), []
    for number in range(2):
        learner(episodes, keys=keys() + 100 * number)
        totals.append(learner.carry.value.own.own.total)
    last = slice(2, 3)  # which lives three windows
    starts, rates = ([take(total[index], last) for total in totals] for index in (0, 2))
    assert starts[0].keys() == {"4.weight", "4.bias"}
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    pairs = zip(tree_leaves(rates[0]), tree_leaves(rates[1]), strict=True)
    assert all((one != other).all() for one, other in pairs)


def test_goes_on_after_loading(episodes):
    learner, other = goes_on(), goes_on()
    train(learner, windows(2))
    other.load_state_dict(learner.state_dict())
    estimates = [each.estimate(episodes, keys() + 7) for each in (learner, other)]
    assert relative_difference(estimates[0].gradient, estimates[1].gradient) == 0
    assert other.inner_models.age.tolist() == learner.inner_models.age.tolist() == [3, 6, 6]


class TestUnbiased:
    """The gradients of a run's windows add up to that of the sum of its query losses."""

    EPISODE = Episode(*[Batch(torch.zeros(1).double())] * 2)

    def sums(self, estimator, problem, meta, num_windows, count, episode=EPISODE):
        """Return sums over the windows of `count` runs, `[count, numbers]`."""

        def run(seed):
            each = [seed * num_windows + window for window in range(num_windows)]
            carry, total = estimator.init_carry(problem, meta, episode, each[0]), 0
            for key in each:
                estimate = estimator(problem, meta, episode, key, carry)
                carry, total = estimate.carry, total + tree_ravel(estimate.gradient)[0]
            return total

        return torch.func.vmap(run)(torch.arange(count))

    def exact(self, problem, meta, num_windows, episode=EPISODE):
        """Return the gradient of the sum of the losses after 1, 2, ... windows, by plain
        autograd through all steps."""
        leaves = tree_map(lambda leaf: leaf.clone().requires_grad_(), meta)
        params, total = leaves.init, 0
        state = problem.rule.init_state(leaves.rule, params, torch.tensor(0))
        for _ in range(num_windows):
            for step in range(problem.num_steps):
                loss = problem.support_loss(params, leaves.shared, episode, step)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                grads = dict(zip(params, grads, strict=True))
                updates, state = problem.rule.update(leaves.rule, grads, state, params, loss, step)
                params = {name: param + updates[name] for name, param in params.items()}
            total = total + problem.query_loss(params, leaves.shared, episode)
        return torch.cat(
            [grad.reshape(-1) for grad in torch.autograd.grad(total, tree_leaves(leaves))]
        )

    def test_where_early_and_late_influence_disagree(self):
        """A target raises the loss at once by a quick parameter, and lowers it later by a slow one.

        All is linear in what is learned but the square, so that smoothing has no bias.
        """

        def support_loss(params, shared, episode, step):
            quick, slow = params["quick"] - shared["target"], params["slow"] - shared["target"]
            return 0.5 * quick.square() + 0.05 * slow.square() + 0 * episode.support.x.sum()

        def query_loss(params, shared, episode):
            return params["quick"] - 3 * params["slow"] + 0.1 * params["slow"].square()

        start = {name: torch.tensor(0.5).double() for name in ("quick", "slow")}
        meta = Meta(start, {"target": torch.tensor(1.0).double()}, {})
        problem = Problem(support_loss, query_loss, inner.SGD(1.0), num_steps=1)
        exact = self.exact(problem, meta, 12)
        truncated = outer.Continued(outer.Unrolled(), horizon=12)
        truncated = self.sums(truncated, problem, meta, 12, 1)[0]
        ours = self.sums(outer.PersistentES(8, 0.3, horizon=12), problem, meta, 12, 2000)
        deviation = ours.std(0) / math.sqrt(len(ours))
        assert ((ours.mean(0) - exact).abs() < 4 * deviation).all()
        target = 2  # of what is learned, after both starts
        assert (truncated - exact)[target].abs() > 30 * deviation[target]
        assert exact[target] < 0 < truncated[target]

    def test_of_a_network_with_a_learned_rate(self, episodes):
        """With a small standard deviation, since here smoothing is biased by its square."""
        learner = sine_learner(inner.LearnedRate(inner.Momentum(0.02)), fast="4", num_steps=2)
        problem, meta, one = learner.problem, tree_detach(learner.meta), task(episodes)
        exact = self.exact(problem, meta, 6, one)
        truncated = outer.Continued(outer.Unrolled(), horizon=12)
        truncated = self.sums(truncated, problem, meta, 6, 1, one)[0]
        estimator = outer.PersistentES(16, 1e-4, horizon=12)
        ours = self.sums(estimator, problem, meta, 6, 2000, one)
        deviation = ours.std(0) / math.sqrt(len(ours))
        assert ((ours.mean(0) - exact).abs() < 4 * deviation).all()
        assert deviation.norm() < 0.1 * exact.norm()
        rate = -1  # of what is learned, the last
        assert (truncated - exact)[rate].abs() > 30 * deviation[rate]


class TestDivergence:
    def test_of_one_particle_alone(self):
        """It starts the problem again, though no loss sees it."""

        def support_loss(params, shared, episode, step):
            return params["seen"].square() + params["unseen"] * shared["value"].sqrt()

        def query_loss(params, shared, episode):
            return params["seen"] + 0 * shared["value"]

        params = {name: torch.tensor(0.5).double() for name in ("seen", "unseen")}
        problem = Problem(support_loss, query_loss, inner.SGD(0.1), num_steps=1)
        near, far = (Meta(params, {"value": torch.tensor(at).double()}, {}) for at in (1e-9, 1e9))
        estimator, episode = outer.PersistentES(2, 1.0, horizon=4), Episode(Batch(()), Batch(()))
        first = second = estimator.init_carry(problem, far, episode, torch.tensor(1))
        ages = []
        for number, meta in enumerate((far, near, far)):
            estimate = estimator(problem, meta, episode, torch.tensor(number), second)
            second = estimate.carry
            assert all(leaf.isfinite().all() for leaf in tree_leaves((estimate.gradient, second)))
            ages.append(estimate.diagnostics["age"].item())
        assert ages == [1, 0, 1]
        assert estimate.diagnostics["num_diverged"].item() == 1
        afresh = estimator(problem, far, episode, torch.tensor(2), first)
        assert relative_difference(estimate.gradient, afresh.gradient) == 0
        assert relative_difference(second.own.own.total, afresh.carry.own.own.total) == 0

    def test_of_a_problem(self, episodes):
        learner = goes_on()
        learner.estimator = outer.SkipDiverged(learner.estimator)
        learner(episodes, keys=keys())
        bad = copy.deepcopy(episodes)
        bad.support.y[1] = torch.nan
        learner(bad, keys=keys() + 1)
        assert learner.diagnostics["finite"].tolist() == [True, False, True]
        assert learner.diagnostics["num_diverged"].tolist() == [0, 1, 0]
        assert learner.inner_models.age.tolist() == [3, 0, 6]
        assert all(leaf.isfinite().all() for leaf in tree_leaves(learner.carry.value))
        learner(episodes, keys=keys() + 2)
        assert learner.inner_models.age.tolist() == [6, 3, 9]


def test_learns_by_a_query_loss_without_a_gradient():
    def fraction(params, shared, episode):
        errors = episode.query.x[:, 0] * params["0.weight"][0, 0] - episode.query.y[:, 0]
        return (errors.abs() > 0.1).double().mean()

    x = torch.randn(4, 50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    episodes = Episode(Batch(x, 2 * x), Batch(x, 2 * x))
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).double()
    nn.init.zeros_(model[0].weight)
    learner = outer.MetaLearner(
        model,
        nn.MSELoss(),
        inner.Learned(inner.SGD(0.02), "lr", space="log"),
        num_steps=1,
        learn_init=False,
        query_loss=fraction,
        estimator=outer.PersistentES(8, 0.1, horizon=8),
    )
    optimizer, before = torch.optim.Adam(learner.parameters(), 0.1), learner.meta.rule["lr"].item()
    for number in range(60):
        optimizer.zero_grad()
        learner(episodes, keys=keys(4) + 10 * number).backward()
        optimizer.step()
    assert learner.meta.rule["lr"].item() > before + 1


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_models_without_second_derivatives():
    bag = nn.EmbeddingBag(7, 1).double()
    x = torch.randint(0, 7, (3, 5, 4), generator=torch.Generator().manual_seed(0))
    y = torch.ones(3, 5, 1, dtype=torch.float64)
    learner = outer.MAML(
        bag,
        nn.MSELoss(),
        inner.SGD(0.1),
        num_steps=3,
        estimator=outer.PersistentES(2, STD, horizon=3),
    )
    assert learner(Episode(Batch(x, y), Batch(x, y))).isfinite()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((0, 0.1, 6), ValueError, "PersistentES's num_pairs must be at least 1; got 0"),
            ((2, 0.0, 6), ValueError, "PersistentES's std must be positive and finite; got 0.0"),
            ((2, 0.1, 0), ValueError, "PersistentES's horizon must be at least 1; got 0"),
            ((2, 0.1, None), TypeError, "PersistentES's horizon must be an int; got None"),
        ],
    )
    def test_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            outer.PersistentES(*arguments)

    def test_horizon_between_windows(self):
        message = "horizon must be a multiple of num_steps=3; got 10. Write horizon=9."
        with pytest.raises(ValueError, match=message):
            goes_on(outer.PersistentES(2, 0.1, horizon=10))

    def test_another_number_of_tasks(self, episodes):
        learner = goes_on()
        learner(episodes)
        with pytest.raises(ValueError, match="that go on must be 3 tasks; got 1"):
            learner(task(episodes, slice(0, 1)))

    def test_another_number_of_pairs(self, episodes):
        learner = goes_on()
        learner(episodes)
        learner.estimator = outer.PersistentES(3, STD, horizon=9)
        with pytest.raises(ValueError, match="learner's carry must be shaped as"):
            learner(episodes)
        learner.carry.reset()
        learner(episodes)

    def test_support_losses_without_a_derivative(self, episodes):
        def hard(params, shared, episode, step):
            return (params["4.bias"] > 0).double().sum()

        with pytest.raises(ValueError, match="support loss must have a derivative; got none"):
            goes_on(support_loss=hard)(episodes)
