"""Windows of inner problems that go on, against a training loop by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F

from metalearn import functional, inner, models, outer
from metalearn._tasks import take
from metalearn._tree import tree_detach, tree_leaves, tree_map
from metalearn.types import Batch, Episode
from tests.cases import keys, relative_difference, sine_learner, task
from tests.outer.cases import assert_reading_leaves_the_carry, assert_same, train, windows

EXACT = [outer.Unrolled(), outer.Stepwise(), outer.Stepwise(segment=2), outer.ForwardMode()]
RULE = inner.LearnedRate(inner.Adam(0.01), per="scalar")


def fresh(meta, support, key):
    """Return a random initialisation, another one for every key."""
    return {
        name: functional.normal(key, param.shape, stream, dtype=param.dtype) / 2
        for stream, (name, param) in enumerate(meta.init.items())
    }


def goes_on(estimator=None, horizon=None, rule=RULE, **options):
    learned = {} if horizon else {"learn_init": False}
    estimator = outer.Continued(estimator or outer.Unrolled(), horizon)
    return sine_learner(rule, estimator=estimator, fast=["0", "4"], **learned, **options)


def by_hand(learner, episodes_of_windows, spans, horizon=None):
    """Return every window's mean loss and meta-gradient, and the last parameters, by plain loops.

    Args:
        learner: Its problem and what is learned are used.
        episodes_of_windows: The episodes of each window.
        spans: Length of every problem's first run.
        horizon: Length of every later one.
    """
    problem, meta = learner.problem, tree_detach(learner.meta)
    runs, results = [None] * len(spans), []
    ages, spans = [0] * len(spans), list(spans)
    for number, episodes in enumerate(episodes_of_windows):
        leaves = tree_map(lambda leaf: leaf.clone().requires_grad_(), meta)
        losses = []
        for index in range(len(spans)):
            one, key = take(episodes, index), keys()[index] + 100 * number
            if ages[index] >= spans[index]:
                runs[index], ages[index], spans[index] = None, 0, horizon
            if runs[index] is None:
                params = problem.start(leaves, one.support, key)
                params = {
                    name: p if p.requires_grad else p.requires_grad_() for name, p in params.items()
                }
                runs[index] = params, problem.rule.init_state(leaves.rule, params, key)
            params, state = runs[index]
            for step in range(problem.num_steps):
                loss = problem.support_loss(params, leaves.shared, one, step)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                grads = dict(zip(params, grads, strict=True))
                updates, state = problem.rule.update(leaves.rule, grads, state, params, loss, step)
                params = {name: param + updates[name] for name, param in params.items()}
            losses.append(problem.query_loss(params, leaves.shared, one))
            ages[index] += problem.num_steps
            runs[index] = tree_map(lambda leaf: leaf.detach().requires_grad_(), (params, state))
        mean = torch.stack(losses).mean()
        grads = torch.autograd.grad(mean, tree_leaves(leaves), allow_unused=True)
        zeros = map(torch.zeros_like, tree_leaves(leaves))
        grads = [zero if grad is None else grad for grad, zero in zip(grads, zeros, strict=True)]
        results.append((mean.detach(), grads))
    return results, [tree_detach(run[0]) for run in runs], ages


def learned_only(learner, expected):
    """Return the gradients by hand, zero where a start is not learned."""
    constant = learner.problem.constant
    names = [*learner.meta.init]
    return [
        (
            loss,
            [
                torch.zeros_like(grad) if place < len(names) and names[place] in constant else grad
                for place, grad in enumerate(grads)
            ],
        )
        for loss, grads in expected
    ]


@pytest.mark.parametrize("estimator", EXACT, ids=str)
@pytest.mark.parametrize("options", [{}, {"batching": "loop"}, {"chunk_size": 2}], ids=str)
def test_windows_equal_a_loop_by_hand(estimator, options):
    learner = goes_on(estimator, **options)
    expected, params, _ = by_hand(learner, windows(3), [10**6] * 3)
    assert_same(train(learner, windows(3)), learned_only(learner, expected))
    run = learner.carry.value.own
    for index, wanted in enumerate(params):
        assert relative_difference(take(run.params, index), wanted) < 1e-10
    assert run.age.tolist() == [9, 9, 9]


@pytest.mark.parametrize("estimator", EXACT[:3], ids=str)
@pytest.mark.parametrize("start", [None, fresh], ids=["learned", "random"])
def test_a_population_starts_again_at_all_ages(estimator, start):
    """Of three problems with a horizon of three windows, one starts again in each."""
    options = {"start": start, "learn_init": False} if start else {}
    learner = goes_on(estimator, horizon=9, **options)
    expected, params, ages = by_hand(learner, windows(7), [3, 6, 9], horizon=9)
    assert_same(train(learner, windows(7)), learned_only(learner, expected))
    assert learner.inner_models.age.tolist() == ages == [9, 6, 3]
    for index, wanted in enumerate(params):
        assert relative_difference(take(learner.inner_models.params, index), wanted) < 1e-10


@pytest.mark.parametrize("way", ["whole", "step"])
@pytest.mark.parametrize("estimator", [outer.Unrolled(), outer.Stepwise()], ids=str)
@pytest.mark.usefixtures("inner_steps_as_they_are")
def test_compiled_windows_equal_eager_ones(estimator, way):
    eager = goes_on(estimator, horizon=6)
    compiled = copy.deepcopy(eager)
    compiled.set_batching(compile={"backend": "eager"} if way == "whole" else way)
    results = train(eager, windows(5))
    assert_same(train(compiled, windows(5)), results)


def test_replicas_go_on_as_learners_do():
    learners = [goes_on(horizon=6) for _ in range(2)]
    with torch.no_grad():
        learners[1].model[4].bias += 0.1
    replicas = outer.Replicas(learners)
    for number, episodes in enumerate(windows(4)):
        twice = tree_map(lambda leaf: torch.cat([leaf, leaf]), episodes)
        losses = replicas(twice, keys=keys().repeat(2) + 100 * number)
        for learner, loss in zip(learners, losses, strict=True):
            wanted = learner(episodes, keys=keys() + 100 * number)
            torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=0)
    for index, learner in enumerate(learners):
        theirs, ours = replicas[index].inner_models, learner.inner_models
        assert relative_difference(theirs.params, ours.params) < 1e-10
        assert theirs.age.tolist() == ours.age.tolist() == [3, 3, 6]


def test_one_problem_alone(episodes):
    learner = goes_on(horizon=6)
    one = [take(each, slice(0, 1)) for each in windows(3)]
    expected, _, ages = by_hand(learner, one, [6], horizon=6)
    results = []
    for number, each in enumerate(one):
        learner.zero_grad()
        loss = learner(each, keys=keys(1) + 100 * number)
        loss.backward()
        results.append((loss.detach(), [leaf.grad for leaf in tree_leaves(learner.meta)]))
    assert_same(results, expected)
    assert learner.inner_models.age.tolist() == ages == [3]


def test_what_reads_leaves_the_runs_where_they_are(episodes):
    learner = goes_on()
    learner(episodes)
    assert_reading_leaves_the_carry(learner, episodes)


def test_a_new_horizon_holds_for_runs_that_have_begun(episodes):
    learner = goes_on()
    for _ in range(3):
        learner(episodes, keys=keys())
    learner.estimator = outer.Continued(outer.Unrolled(), horizon=6)
    ages = []
    for _ in range(3):
        learner(episodes, keys=keys())
        ages.append(learner.inner_models.age.tolist())
    assert ages == [[3] * 3, [6] * 3, [3] * 3]
    learner.estimator = outer.Continued(outer.Unrolled())
    for _ in range(4):
        learner(episodes, keys=keys())
    assert learner.inner_models.age.tolist() == [15] * 3


class TestDivergence:
    def test_a_problem_that_diverges_starts_again(self, episodes):
        learner = goes_on(outer.Unrolled())
        learner.estimator = outer.SkipDiverged(learner.estimator)
        learner(episodes, keys=keys())
        bad = copy.deepcopy(episodes)
        bad.support.y[1] = torch.nan
        learner(bad, keys=keys())
        assert learner.diagnostics["finite"].tolist() == [True, False, True]
        assert learner.diagnostics["num_diverged"].tolist() == [0, 1, 0]
        assert learner.inner_models.age.tolist() == [6, 0, 6]
        assert all(leaf.isfinite().all() for leaf in tree_leaves(learner.carry.value))
        learner(episodes, keys=keys())
        afresh = goes_on()
        afresh(episodes, keys=keys())
        ours, theirs = (take(each.inner_models.params, 1) for each in (learner, afresh))
        assert relative_difference(ours, theirs) < 1e-12
        assert learner.diagnostics["age"].tolist() == [9, 3, 9]

    def test_in_its_first_window(self, episodes):
        learner = goes_on()
        episodes.support.y[1] = torch.nan
        learner(episodes, keys=keys())
        assert learner.inner_models.age.tolist() == [3, 0, 3]
        assert all(leaf.isfinite().all() for leaf in tree_leaves(learner.carry.value))


class TestInnerModels:
    def test_are_models_to_call_save_and_go_on_with(self, episodes):
        learner = goes_on()
        learner(episodes, keys=keys())
        models = learner.inner_models
        adapted = learner.adapt(episodes.support, keys=keys())
        assert relative_difference(models.params, adapted.params) < 1e-12
        assert relative_difference(models.state, adapted.state) < 1e-12
        assert models.age.tolist() == adapted.age.tolist() == [3, 3, 3]
        x = episodes.query.x
        torch.testing.assert_close(models(x), adapted(x))
        torch.testing.assert_close(models[1](x[1]), adapted(x)[1])
        assert models[1].state_dict().keys() == learner.model.state_dict().keys() | {"0.weight"}

    def test_adaptation_goes_on(self, episodes):
        learner = goes_on()
        twice = learner.adapt(episodes.support, 6, keys=keys())
        once = learner.adapt(episodes.support, 3, keys=keys())
        again = learner.adapt(episodes.support, 3, start=once, keys=keys())
        assert relative_difference(again.params, twice.params) < 1e-12
        assert relative_difference(again.state, twice.state) < 1e-12
        assert again.age.tolist() == [6, 6, 6]

    def test_of_a_loaded_learner(self, episodes):
        learner, other = goes_on(), goes_on()
        for _ in range(2):
            learner(episodes, keys=keys())
        other.load_state_dict(learner.state_dict())
        assert other.inner_models.age.tolist() == [6, 6, 6]
        assert relative_difference(other.inner_models.params, learner.inner_models.params) == 0
        results = [each(episodes, keys=keys()).item() for each in (learner, other)]
        assert results[0] == results[1]

    def test_of_a_loaded_learner_in_another_dtype_or_of_another_rule(self, episodes):
        learner, other = goes_on(), goes_on()
        learner(episodes, keys=keys())
        other.load_state_dict(learner.state_dict())
        other.float()
        assert {leaf.dtype for leaf in other.inner_models.params.values()} == {torch.float32}
        another = goes_on(rule=inner.LearnedRate(inner.SGD(0.1)))
        another(episodes, keys=keys())
        learner.load_state_dict(another.state_dict(), strict=False)
        with pytest.raises(ValueError, match="learner's carry must be shaped as"):
            learner.inner_models  # noqa: B018

    def test_that_normalise_by_their_support_set(self, episodes):
        model = torch.nn.Sequential(
            torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        ).double()
        models.use_batch_statistics(model, "support")
        estimator = outer.Continued(outer.Unrolled())
        rule = inner.LearnedRate(inner.SGD(0.01))
        options = {"num_steps": 2, "learn_init": False, "estimator": estimator}
        learner = outer.MetaLearner(model, F.mse_loss, rule, **options)
        learner(episodes)
        with pytest.raises(ValueError, match="have one; got .* whose support sets are gone"):
            learner.inner_models(episodes.query.x)
        with pytest.raises(ValueError, match="have one; got .* whose support sets are gone"):
            learner.inner_models[0]
        with_support = learner.adapt(episodes.support, 0, start=learner.inner_models)
        assert with_support.loss(episodes.query).shape == (3,)


class TestStart:
    def test_may_be_a_module_that_is_learned(self, episodes):
        class Offset(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.offset = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

            def forward(self, meta, support, key):
                mean = support.y.mean()
                return {name: param + self.offset * mean for name, param in meta.init.items()}

        learner = sine_learner(inner.SGD(0.01), start=Offset())
        learner(episodes).backward()
        total = learner.start.offset.grad
        step = 1e-6
        with torch.no_grad():
            learner.start.offset += step
            above = learner(episodes, keys=keys())
            learner.start.offset -= 2 * step
            below = learner(episodes, keys=keys())
        torch.testing.assert_close(total, (above - below) / (2 * step), rtol=1e-6, atol=1e-9)
        assert "start.offset" in learner.state_dict()

    def test_adaptation_and_evaluation_begin_there(self, episodes):
        learner = sine_learner(start=fresh, learn_init=False, rule=inner.MetaSGD(0.01))
        adapted = learner.adapt(episodes.support, 0, keys=keys())
        wanted = fresh(learner.meta, None, keys()[1])
        assert relative_difference(take(adapted.params, 1), wanted) == 0

    @pytest.mark.parametrize(
        ("start", "error", "message"),
        [
            (lambda meta: meta.init, TypeError, r"start must take \(meta, support, key\)"),
            (3, TypeError, "start must be a function or a module; got 3. Write def start"),
            (lambda *_: 3, TypeError, "start must return a dict of tensors; got int. Return {name"),
            (lambda *_: {}, ValueError, "start must return parameters of shapes"),
            (
                lambda meta, *_: {name: param.float() for name, param in meta.init.items()},
                ValueError,
                "start's 0.weight must be of torch.float64; got torch.float32",
            ),
        ],
        ids=["arguments", "number", "no dict", "empty", "dtype"],
    )
    def test_bad(self, start, error, message, episodes):
        with pytest.raises(error, match=message):
            sine_learner(start=start, rule=inner.MetaSGD(0.01), learn_init=False)(episodes)

    @pytest.mark.parametrize("kind", ["a closure", "a method"])
    def test_that_closes_over_a_parameter(self, kind, episodes):
        class Shift(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.offset = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

            def forward(self, meta, support, key):
                return {name: param + self.offset for name, param in meta.init.items()}

        shift = Shift()
        start = shift.forward if kind == "a method" else lambda *args: shift(*args)
        with pytest.raises(ValueError, match="start must capture no parameters"):
            sine_learner(start=start)(episodes)

    def test_that_makes_no_use_of_what_is_learned(self, episodes):
        with pytest.raises(ValueError, match="get a gradient; got none for .*learn_init=False, or"):
            sine_learner(start=fresh)(episodes)


class TestBadInput:
    def test_horizon_between_windows(self):
        with pytest.raises(ValueError, match="horizon must be a multiple of num_steps=3; got 10. "):
            goes_on(horizon=10)

    def test_start_that_is_learned_without_a_horizon(self):
        estimator = outer.Continued(outer.Unrolled())
        with pytest.raises(ValueError, match="reaches rule, shared only. .*learn_init=False"):
            sine_learner(inner.MetaSGD(0.01), estimator=estimator)

    @pytest.mark.parametrize(
        "estimator",
        [outer.OnlineForwardMode(), outer.EvolutionStrategies(2), outer.PersistentES(2, 0.1, 6)],
    )
    def test_estimators_that_cannot_go_on(self, estimator, episodes):
        with pytest.raises(ValueError, match="be one that can go on; got .* Begin at problem.begi"):
            goes_on(estimator)(episodes)

    def test_estimators_that_go_on_by_themselves(self, episodes):
        message = "PersistentES and OnlineForwardMode go on by themselves, without Continued"
        with pytest.raises(ValueError, match=message):
            goes_on(outer.PersistentES(2, 0.1, 6))(episodes)

    def test_another_number_of_tasks(self, episodes):
        learner = goes_on()
        learner(episodes)
        with pytest.raises(ValueError, match="that go on must be 3 tasks; got 1"):
            learner(task(episodes, slice(0, 1)))

    def test_no_run_yet(self):
        with pytest.raises(ValueError, match="inner models must have started; got none. Train"):
            goes_on().inner_models  # noqa: B018

    def test_models_to_go_on_with(self, episodes):
        learner = goes_on()
        adapted = learner.adapt(episodes.support)
        two = task(episodes, slice(0, 2))
        with pytest.raises(ValueError, match="go on from must be those of 2 tasks; got 3"):
            learner.adapt(two.support, start=adapted)
        with pytest.raises(TypeError, match="go on from must be adapted models; got dict"):
            learner.adapt(episodes.support, start=adapted.params)
        learner.float()
        support = tree_map(torch.Tensor.float, episodes.support)
        with pytest.raises(ValueError, match="0.weight to go on from must be as the learner's"):
            learner.adapt(support, start=adapted)
        learner.double()
        other = goes_on(rule=inner.LearnedRate(inner.SGD(0.1)))
        with pytest.raises(ValueError, match="state of its rule to go on from must be of shapes"):
            learner.adapt(episodes.support, start=other.adapt(episodes.support))


def test_the_doc_example_of_batches():
    """One batch a problem and window."""
    batch = Batch(torch.randn(2, 4, 1, dtype=torch.float64), torch.randn(2, 4, 1).double())
    learner = goes_on()
    learner(Episode(batch, batch))
    assert len(learner.inner_models) == 2
