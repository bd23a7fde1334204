import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from metalearn import evaluate, fit, inner, models, outer
from metalearn._ensemble import Ensemble
from tests.cases import sine_episodes, sine_learner


class Scaled(nn.Module):
    """A criterion with a learned parameter."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, output, y, weight=1.0):
        return (weight * self.scale * (output - y).square().squeeze(-1)).mean()


def test_one_member_is_the_learner(episodes):
    learner = sine_learner()
    alone, ensemble = (evaluate(each, episodes, num_tasks=3) for each in (learner, [learner]))
    torch.testing.assert_close(ensemble["loss"].values, alone["loss"].values)
    assert (ensemble.num_steps, ensemble.fingerprint) == (alone.num_steps, alone.fingerprint)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_the_first_criterion_judges_with_weights(episodes, batching):
    rule, options = inner.SGD(0.01), {"num_steps": 1, "batching": batching}
    learners = [
        outer.MAML(models.mlp(1, [4], 1).double(), Scaled(scale), rule, **options)
        for scale in (2.0, 3.0)
    ]
    weight = torch.rand(3, 4, dtype=torch.float64)
    episodes = episodes._replace(query=episodes.query._replace(weight=weight))
    outputs = [learner.adapt(episodes.support)(episodes.query.x) for learner in learners]
    square = (sum(outputs) / 2 - episodes.query.y).square().squeeze(-1)
    adapted = Ensemble(learners).adapt(episodes.support, 1, keys=torch.arange(3))
    torch.testing.assert_close(adapted.loss(episodes.query), 2 * (weight * square).mean(1))


def test_the_best_checkpoints_of_a_run():
    learner, members = sine_learner(), []
    optimizer = torch.optim.Adam(learner.parameters())
    scores = iter([3.0, 1.0, 2.0])
    options = {
        "validate": lambda _: next(scores),
        "validate_every": 1,
        "keep_best": 2,
        "progress": False,
    }
    history = fit(learner, sine_episodes(), optimizer, 3, **options)
    for state in history.best_states:
        members.append(copy.deepcopy(learner))
        members[-1].load_state_dict(state)
    losses = [
        evaluate(each, sine_episodes(), num_tasks=3)["loss"].mean for each in (*members, members)
    ]
    assert len(set(losses)) == 3
    assert losses[2] < max(losses[:2])  # the squared error is convex in the output


def test_refuses_what_cannot_be_averaged():
    own = sine_learner(query_loss=lambda params, shared, episode: params["0.bias"].sum())
    with pytest.raises(
        ValueError, match="learners of an ensemble must be judged by a criterion; got a query_loss"
    ):
        evaluate([sine_learner(), own], sine_episodes(), num_tasks=3)
    two = [sine_learner(), sine_learner(num_steps=1)]
    with pytest.raises(
        ValueError, match="num_steps must be given for learners that differ in it; got .1, 3."
    ):
        evaluate(two, sine_episodes(), num_tasks=3)
    assert evaluate(two, sine_episodes(), num_tasks=3, num_steps=2).num_steps == 2
    elsewhere = outer.MAML(
        models.mlp(1, [4], 1).to("meta"), F.mse_loss, inner.SGD(0.1), num_steps=1
    )
    with pytest.raises(ValueError, match="all learners must be on one device; got .'cpu', 'meta'."):
        Ensemble([sine_learner(), elsewhere])
