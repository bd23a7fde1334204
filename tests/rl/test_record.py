"""Several outer steps on the same trajectories."""

from functools import partial

import pytest
import torch

from metalearn import inner, outer, rl
from metalearn._tree import tree_leaves
from metalearn.functional import draw_keys

ENVIRONMENT = rl.Navigation2D(horizon=3)
EPISODES = rl.UniformTasks((-0.5, -0.5), (0.5, 0.5)).sample(
    3, generator=torch.Generator().manual_seed(1)
)
KEYS = draw_keys(3, generator=torch.Generator().manual_seed(2))


def learner(query_surrogate=rl.reinforce, **options):
    torch.manual_seed(0)
    policy = rl.GaussianPolicy(2, [4], 2).double()
    sizes = {
        "num_support": 3,
        "num_query": 4,
        "surrogate": rl.dice,
        "query_surrogate": query_surrogate,
    }
    losses = rl.policy_gradient(policy, ENVIRONMENT, **sizes)
    return outer.MetaLearner(policy, None, inner.SGD(0.01), num_steps=2, **losses, **options)


def test_kept_trajectories_give_the_gradient_of_new_ones():
    of = learner()
    kept = rl.record(of, EPISODES, keys=KEYS)
    new, old = (of.estimate(which, KEYS) for which in (EPISODES, kept))
    assert kept.support.x["recorded"].rewards.shape == (3, 2, 3, 3)
    pairs = zip(tree_leaves(new[:2]), tree_leaves(old[:2]), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) < 1e-10


def test_several_clipped_steps_on_kept_trajectories():
    of = learner(partial(rl.clipped, clip=0.1))
    kept = rl.record(of, EPISODES, keys=KEYS)
    optimizer = torch.optim.SGD(of.parameters(), lr=1.0)
    largest = []
    for _ in range(4):
        optimizer.zero_grad()
        of(kept, keys=KEYS).backward()
        optimizer.step()
        largest.append(max(param.grad.abs().max() for param in of.parameters()))
    assert largest[-1] < largest[0]  # clipped away


def test_bad_input():
    with pytest.raises(TypeError, match="learner's losses must be those of rl.policy_gradient"):
        rl.record(
            outer.MAML(rl.GaussianPolicy(2, [], 2), torch.mean, inner.SGD(0.1), num_steps=1),
            EPISODES,
        )
    with pytest.raises(TypeError, match="episodes must be an Episode of two Batches; got range"):
        rl.record(learner(), range(3))


@pytest.mark.parametrize(
    "wrap", [lambda estimator: estimator, lambda estimator: outer.ClipPerTask(estimator, 1.0)]
)
def test_refuses_losses_after_other_steps(wrap):
    of = learner(estimator=wrap(outer.Unrolled(multi_step=outer.MultiStep())))
    with pytest.raises(ValueError, match="differentiate the query loss after the last step alone"):
        rl.record(of, EPISODES)
