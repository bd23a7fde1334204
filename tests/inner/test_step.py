import pytest
import torch
import torch.nn.functional as F

from metalearn import inner
from metalearn.types import Batch, Episode, Meta, Problem
from tests.cases import RandomMask, keys, sine_learner, task


def test_step_is_gradient_descent(episodes):
    learner, episode = sine_learner(inner.SGD(0.1)), task(episodes)
    meta = learner.meta
    first = inner.step(learner.problem, meta, meta.init, (), episode, 0)
    loss = F.mse_loss(learner.model(episode.support.x), episode.support.y)
    loss.backward()
    assert first.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    for name, param in learner.model.named_parameters():
        torch.testing.assert_close(first.grads[name], param.grad, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(
            first.params[name], param - 0.1 * param.grad, rtol=1e-12, atol=1e-14
        )


def test_adapt_returns_the_state(episodes):
    learner = sine_learner(RandomMask(0.1))
    adapted = inner.adapt(learner.problem, learner.meta, task(episodes), keys()[0])
    assert set(adapted.state) == set(adapted.params)


@pytest.mark.parametrize("step", [0, 3])
def test_what_the_loss_reads_beside_the_parameters_stays_apart_from_them(step):
    """The loss holds what the step starts from as a constant, too."""

    def end(start, taken):
        def loss(params, shared, episode, step):
            return (params["w"] ** 3 * start["w"]).sum()

        problem = Problem(loss, loss, inner.SGD(0.1), num_steps=2)
        return taken(problem, Meta(start, {}, {})).params["w"].square().sum()

    def one(problem, meta):
        return inner.step(problem, meta, meta.init, (), None, step)

    def many(problem, meta):
        return inner.adapt(problem, meta, Episode(Batch(()), Batch(())), torch.tensor(0))

    start = torch.tensor([1.0, -2.0]).double()
    for taken in (one, many):
        expected = torch.func.grad(lambda start, taken=taken: end({"w": start}, taken))(start)
        ours = start.clone().requires_grad_()
        end({"w": ours}, taken).backward()
        torch.testing.assert_close(ours.grad, expected, rtol=1e-12, atol=1e-14)
