import pytest
import torch
import torch.nn.functional as F

from metalearn import inner
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
