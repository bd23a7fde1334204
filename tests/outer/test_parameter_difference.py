"""Reptile's direction against its definition, and its expansion for small rates."""

import copy

import torch
import torch.nn.functional as F

from metalearn import inner, outer
from metalearn.types import Batch, Episode, Meta
from tests.cases import keys, relative_difference, sine_learner, task


def test_is_start_minus_adapted(episodes):
    learner = sine_learner(estimator=outer.ParameterDifference())
    gradient = learner.estimate(episodes, keys()).gradient
    adapted = learner.adapt(episodes.support)
    expected = {
        name: start.detach() - adapted.params[name].mean(0)
        for name, start in learner.meta.init.items()
    }
    assert relative_difference(gradient.init, expected) < 1e-12


def test_sgd_makes_the_papers_outer_step(episodes):
    learner = sine_learner(estimator=outer.ParameterDifference())
    start = {name: p.detach().clone() for name, p in learner.meta.init.items()}
    adapted = learner.adapt(episodes.support)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.25)
    learner(episodes).backward()
    optimizer.step()
    for name, param in learner.meta.init.items():
        expected = start[name] + 0.25 * (adapted.params[name].mean(0) - start[name])
        torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-14)


def test_loss_is_that_of_the_adapted_models(episodes):
    learner = sine_learner(estimator=outer.ParameterDifference())
    expected = learner.adapt(episodes.support, keys=keys()).loss(episodes.query)
    torch.testing.assert_close(learner.estimate(episodes, keys()).loss, expected)


def quadratic(params, part):
    """A loss of one mini-batch: any smooth function with its own curvature."""
    matrix, centre = part
    offset = params["w"] - centre
    return 0.5 * offset @ matrix @ offset + 0.1 * offset.pow(3).sum()


def coefficients(estimator, num_steps, rate, parts, w):
    """Fit the estimate to AvgGrad and AvgGradInner, averaged over all orders of the
    mini-batches."""

    def support_loss(params, shared, episode, step):
        return quadratic(params, (episode.support.x[step], episode.support.y[step]))

    def query_loss(params, shared, episode):
        last = num_steps - 1
        return quadratic(params, (episode.support.x[last], episode.support.y[last]))

    inner_steps = num_steps if isinstance(estimator, outer.ParameterDifference) else num_steps - 1
    gradient = outer.meta_gradient(
        support_loss, query_loss, inner.SGD(rate), estimator, inner_steps
    )
    grads = [torch.func.grad(quadratic)({"w": w}, part)["w"] for part in parts]
    hessians = [torch.func.hessian(quadratic)({"w": w}, part)["w"]["w"] for part in parts]
    count = len(parts)
    estimate, avg_inner = torch.zeros_like(w), torch.zeros_like(w)
    for i in range(count):
        for j in range(count):
            if i != j:
                avg_inner += (
                    0.5 * (hessians[i] @ grads[j] + hessians[j] @ grads[i]) / (count * (count - 1))
                )
    orders = torch.combinations(torch.arange(count), num_steps)
    permutations = [order[list(p)] for order in orders for p in _permutations(num_steps)]
    for order in permutations:
        x = torch.stack([parts[i][0] for i in order])
        y = torch.stack([parts[i][1] for i in order])
        batch = Batch(x, y)
        meta = Meta({"w": w}, {}, {})
        estimate += gradient(meta, Episode(batch, batch), torch.tensor(0)).gradient.init["w"]
    avg_grad = torch.stack(grads).mean(0)
    basis = torch.stack([avg_grad, avg_inner], dim=1)
    return torch.linalg.lstsq(basis, (estimate / len(permutations))[:, None]).solution[:, 0]


def _permutations(count):
    from itertools import permutations

    return list(permutations(range(count)))


def test_expansion_of_nichol_et_al():
    """Sun, eqs. 33-41: MAML (1, -2(k-1)a), FOMAML (1, -(k-1)a), Reptile (k, -k(k-1)a/2) to leading
    order in a."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    parts = [(lambda m: m @ m.T / 6)(draw(6, 6)) for _ in range(4)]
    parts = [(matrix, draw(6)) for matrix in parts]
    w, rate, k = draw(6), 1e-5, 3
    expected = {
        outer.Unrolled(): (1, -2 * (k - 1)),
        outer.Unrolled(order=1): (1, -(k - 1)),
        outer.ParameterDifference(): (k, -k * (k - 1) / 2),
    }
    for estimator, (of_grad, of_inner) in expected.items():
        scale = rate if isinstance(estimator, outer.ParameterDifference) else 1.0
        fitted = coefficients(estimator, k, rate, parts, w) / scale
        assert abs(fitted[0].item() - of_grad) < 1e-3
        assert abs(fitted[1].item() / rate - of_inner) < 1e-2, estimator


def test_only_the_start_gets_a_gradient(episodes):
    learner = sine_learner(estimator=outer.ParameterDifference())
    one = task(episodes)
    estimate = learner.estimator(learner.problem, learner.meta, one, keys()[0], ())
    assert estimate.gradient.shared == {}
    assert estimate.gradient.rule == {}


class TestKeptState:
    def learner(self, **options):
        rule = inner.Adam(0.01, betas=(0.0, 0.9))
        return sine_learner(rule, estimator=outer.ParameterDifference(keep_state=True), **options)

    def test_tasks_go_on_with_one_optimizer(self, episodes):
        """Serial Reptile as its authors run it: torch's Adam, never reset, on one task after
        another."""
        learner = self.learner(num_steps=3)
        outer_optimizer = torch.optim.SGD(learner.parameters(), lr=0.5)
        model = copy.deepcopy(learner.model)
        theirs = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.0, 0.9))
        for index in (0, 1, 2, 0):
            outer_optimizer.zero_grad()
            learner(task(episodes, slice(index, index + 1))).backward()
            outer_optimizer.step()

            start = [param.detach().clone() for param in model.parameters()]
            support = task(episodes, index).support
            for _ in range(3):
                theirs.zero_grad()
                F.mse_loss(model(support.x), support.y).backward()
                theirs.step()
            with torch.no_grad():
                for param, old in zip(model.parameters(), start, strict=True):
                    param.copy_(old + 0.5 * (param - old))
        for ours, param in zip(learner.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, param, rtol=1e-9, atol=1e-12)

    def test_a_batch_leaves_the_mean_of_its_states(self, episodes):
        learner = self.learner()
        each = [
            learner.estimate(task(episodes, slice(i, i + 1))).carry.common["square"]["0.weight"]
            for i in range(3)
        ]
        together = learner.estimate(episodes).carry.common["square"]["0.weight"]
        torch.testing.assert_close(together, torch.stack(each).mean(0), rtol=1e-10, atol=1e-14)

    def test_adapt_starts_afresh(self, episodes):
        learner = self.learner()
        before = learner.adapt(episodes.support).params["0.weight"]
        learner(episodes)
        assert torch.equal(learner.adapt(episodes.support).params["0.weight"], before)

    def test_survives_state_dict(self, episodes):
        one, two = self.learner(), self.learner()
        one(episodes)
        two.load_state_dict(one.state_dict())
        assert torch.equal(one(episodes), two(episodes))

    def test_a_diverged_task_leaves_no_trace(self, episodes):
        """Its gradient is reported as it is; what is carried is the mean of the others."""
        broken = episodes._replace(support=episodes.support._replace(y=episodes.support.y.clone()))
        broken.support.y[1] = torch.nan
        learner = self.learner()
        estimate = learner.estimate(broken)
        assert estimate.diagnostics["finite"].tolist() == [True, False, True]
        assert not estimate.gradient.init["0.weight"].isfinite().all()
        kept = estimate.carry.common["square"]["0.weight"]
        each = [
            learner.estimate(task(episodes, slice(i, i + 1))).carry.common["square"]["0.weight"]
            for i in (0, 2)
        ]
        torch.testing.assert_close(kept, (each[0] + each[1]) / 2, rtol=1e-10, atol=1e-14)
