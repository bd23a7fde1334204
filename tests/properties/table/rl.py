"""Environments, policies, and the losses made of them."""

from functools import partial

import gymnasium
import torch
from hypothesis import strategies as st

from metalearn import inner, outer, rl
from metalearn.types import Batch
from tests.properties.entry import Entry
from tests.properties.strategies import BOOLS, COUNTS, KEYS, POSITIVE, SEEDS, damaged, tensors

WALK = rl.Navigation2D(horizon=2)
WALKS = st.just(WALK)
FACTORS = st.floats(0, 1)
SURROGATES = st.sampled_from([rl.reinforce, rl.dice, rl.clipped, partial(rl.clipped, clip=0.1)])
POLICIES = st.builds(rl.GaussianPolicy, st.just(2), st.just([3]), st.just(2))
GOALS = rl.UniformTasks((-0.5, -0.5), (0.5, 0.5))
STEPS = tensors(2, 3, dtype=torch.float32)
WRONG_STEPS = st.sampled_from(
    [torch.zeros(3), torch.zeros(2, 4), torch.zeros(2, 3, 1), torch.zeros(0, 3)]
)
LOG_PROBS = dict.fromkeys(("log_probs", "old_log_probs", "advantages"), STEPS)
WRONG_LOG_PROBS = dict.fromkeys(LOG_PROBS, WRONG_STEPS)
OPTIONS = {"baseline": BOOLS, "discount": FACTORS, "decay": FACTORS, "normalise": BOOLS}
WRONG_FACTORS = st.sampled_from([-0.1, 1.5, float("nan")])
HIDDEN = st.sampled_from([[], [3], (2, 2)])


def keeps_the_protocol(environment, /, **_):
    is_table = isinstance(environment, rl.Tabular)
    sizes = environment.observation_size, environment.action_size
    action = (
        torch.zeros(2, dtype=torch.int64) if is_table else torch.ones(2, environment.action_size)
    )
    rl.check_environment(environment, torch.ones(*sizes) if is_table else torch.ones(2), action)


def pendulums(count):
    return gymnasium.make_vec("Pendulum-v1", count)


def acts(policy, /, **_):
    width = policy.network[0].in_features
    output = policy(torch.zeros(2, width))
    action = policy.sample(output, torch.full((2, policy.noise_size), 0.3))
    assert policy.log_prob(output, action).isfinite().all()


def drawn(tasks, /, **_):
    episodes = tasks.sample(3, generator=torch.Generator().manual_seed(0))
    assert episodes.support.x["key"].shape == (3,)


def finite(result, /, **arguments):
    given = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    if not any(value.is_meta for value in given):
        assert result.isfinite().all() or not all(value.isfinite().all() for value in given)


def rolled_out(made, /, num_trajectories, **_):
    assert made.rewards.shape == (2, num_trajectories)


def first(episodes):
    return Batch({name: leaf[0] for name, leaf in episodes.support.x.items()})


def loss_of(policy, **options):
    loss = rl.PolicyLoss(policy, **options)
    return loss(dict(loss.policy.named_parameters()), {}, first(GOALS.sample(1)))


def roll_out(policy, **arguments):
    params = dict(policy.named_parameters()) if isinstance(policy, torch.nn.Module) else {}
    return rl.rollout(policy=policy, params=params, task=torch.ones(2), **arguments)


def meta_gradient(policy, **options):
    losses = rl.policy_gradient(policy, **options)
    return outer.MAML(policy, None, inner.SGD(1e-3), num_steps=1, **losses)(GOALS.sample(2))


def recorded(learner, episodes):
    kept = rl.record(learner, episodes)
    assert learner(kept).isfinite()
    return kept


def learner():
    policy = rl.GaussianPolicy(2, [3], 2)
    losses = rl.policy_gradient(policy, WALK, num_support=2, num_query=2)
    return outer.MAML(policy, None, inner.SGD(1e-3), num_steps=1, **losses)


EPISODES = SEEDS.map(lambda seed: GOALS.sample(2, generator=torch.Generator().manual_seed(seed)))
ROLLS = {"policy": POLICIES, "environment": WALKS}

ENTRIES = {
    "Navigation2D": Entry(
        rl.Navigation2D,
        {
            "horizon": COUNTS,
            "max_step": POSITIVE,
            "reward": st.sampled_from(["distance", "squared"]),
        },
        keeps_the_protocol,
    ),
    "Pendulum": Entry(rl.Pendulum, {"horizon": COUNTS, "max_torque": POSITIVE}, keeps_the_protocol),
    "Gymnasium": Entry(
        rl.Gymnasium,
        {
            "make": st.just(pendulums),
            "horizon": COUNTS,
            "set_task": st.sampled_from([None, lambda made, task: None]),
        },
        keeps_the_protocol,
        functions=frozenset({"make", "set_task"}),
    ),
    "Tabular": Entry(
        rl.Tabular,
        {
            "transitions": st.sampled_from([(((1.0,),),), (((1.0, 0.0),), ((0.5, 0.5),))]),
            "horizon": COUNTS,
        },
        keeps_the_protocol,
        {
            "transitions": st.sampled_from(
                [(((0.5,),),), ((1.0,),), ((("x",),),), (((2.0, -1.0),),) * 2, ((),)]
            )
        },
    ),
    "bandit": Entry(rl.bandit, {"num_arms": COUNTS, "horizon": COUNTS}, keeps_the_protocol),
    "check_environment": Entry(
        rl.check_environment,
        {"environment": WALKS, "action": tensors(3, 2, dtype=torch.float32)},
        given={"task": st.just(torch.ones(2))},
        wrong={"action": st.sampled_from([torch.zeros(0, 2), torch.zeros(2, 2, 2)])},
        always=False,
    ),
    "UniformTasks": Entry(
        rl.UniformTasks,
        {"low": st.just((-1.0, 0.0)), "high": st.sampled_from([(1.0, 0.0), (0, 1)])},
        drawn,
        {
            "low": st.sampled_from([(2.0, 0.0), (), (None, 0.0)]),
            "high": st.sampled_from([(1.0,), ("a", "b")]),
        },
    ),
    "FiniteTasks": Entry(
        rl.FiniteTasks,
        {"tasks": st.one_of(tensors(2, 2), tensors(3).map(lambda leaf: {"mass": leaf}))},
        drawn,
        {
            "tasks": st.sampled_from(
                [torch.zeros(0, 2), {}, [1], {"a": torch.ones(2), "b": torch.ones(3)}]
            )
        },
    ),
    "GaussianPolicy": Entry(
        rl.GaussianPolicy,
        {"observation_size": COUNTS, "hidden": HIDDEN, "action_size": COUNTS, "init_std": POSITIVE},
        acts,
    ),
    "CategoricalPolicy": Entry(
        rl.CategoricalPolicy,
        {"observation_size": COUNTS, "hidden": HIDDEN, "num_actions": COUNTS},
        acts,
    ),
    "rollout": Entry(
        roll_out,
        {**ROLLS, "key": KEYS, "num_trajectories": COUNTS},
        rolled_out,
        {"key": st.sampled_from([torch.tensor(7, dtype=torch.int32)])},
    ),
    "fitted_values": Entry(
        rl.fitted_values,
        {
            "observations": tensors(2, 3, 2, dtype=torch.float32),
            "rewards": STEPS,
            "discount": FACTORS,
        },
        finite,
        {"observations": WRONG_STEPS, "rewards": WRONG_STEPS, "discount": WRONG_FACTORS},
    ),
    "advantages": Entry(
        rl.advantages,
        {
            "rewards": STEPS,
            "values": st.one_of(st.none(), STEPS),
            "discount": FACTORS,
            "decay": FACTORS,
        },
        finite,
        {
            "rewards": WRONG_STEPS,
            "values": WRONG_STEPS,
            "discount": WRONG_FACTORS,
            "decay": WRONG_FACTORS,
        },
    ),
    "reinforce": Entry(rl.reinforce, LOG_PROBS, finite, WRONG_LOG_PROBS),
    "dice": Entry(rl.dice, LOG_PROBS, finite, WRONG_LOG_PROBS),
    "clipped": Entry(
        rl.clipped, {**LOG_PROBS, "clip": st.floats(0.01, 0.99)}, finite, WRONG_LOG_PROBS
    ),
    "PolicyLoss": Entry(
        loss_of,
        {**ROLLS, "num_trajectories": COUNTS, "surrogate": SURROGATES, **OPTIONS},
        finite,
        functions=frozenset({"surrogate"}),
    ),
    "SupportRollouts": Entry(
        rl.SupportRollouts, {"loss": st.builds(rl.PolicyLoss, POLICIES, WALKS)}
    ),
    "QueryRollouts": Entry(rl.QueryRollouts, {"loss": st.builds(rl.PolicyLoss, POLICIES, WALKS)}),
    "policy_gradient": Entry(
        meta_gradient,
        {**ROLLS, "num_support": COUNTS, "num_query": COUNTS, "surrogate": SURROGATES, **OPTIONS},
        functions=frozenset({"surrogate"}),
        always=False,
    ),
    "record": Entry(
        recorded,
        {"learner": st.builds(learner), "episodes": EPISODES},
        wrong={"episodes": damaged(EPISODES)},
    ),
}

EXCLUDED = {
    "Environment": "abstract; those of the package are listed",
    "Tasks": "abstract; those of the package are listed",
    "Policy": "abstract; those of the package are listed",
    "Rollout": "a named tuple; `rollout` makes it",
}
