"""The losses in learners: all ways of computing agree, and other rules are another argument."""

import pickle

import pytest
import torch

from metalearn import evaluate, fit, inner, outer, rl
from metalearn._tree import tree_leaves
from metalearn.functional import draw_keys
from metalearn.types import Batch

ENVIRONMENT = rl.Navigation2D(horizon=3)
SGD = inner.SGD(0.01)
TASKS = rl.UniformTasks((-0.5, -0.5), (0.5, 0.5))


def learner(method=outer.MAML, rule=SGD, surrogate=rl.dice, wrap=lambda policy: policy, **options):
    torch.manual_seed(0)
    policy = wrap(rl.GaussianPolicy(2, [4], 2).double())
    given = {"environment": ENVIRONMENT, "num_support": 3, "num_query": 4, "surrogate": surrogate}
    losses = rl.policy_gradient(policy, **{**given, **options.pop("losses", {})})
    return method(policy, None, rule, **{"num_steps": 2, **losses, **options})


@pytest.fixture
def episodes():
    return TASKS.sample(3, generator=torch.Generator().manual_seed(1))


KEYS = draw_keys(3, generator=torch.Generator().manual_seed(2))


def difference(left, right, episodes):
    pairs = [tree_leaves(of.estimate(episodes, KEYS)[:2]) for of in (left, right)]
    return max((a - b).abs().max() for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("surrogate", [rl.dice, rl.reinforce])
@pytest.mark.parametrize(
    "options", [{"estimator": outer.Stepwise()}, {"batching": "loop"}, {"chunk_size": 2}], ids=str
)
def test_all_ways_agree(options, surrogate, episodes):
    assert (
        difference(learner(surrogate=surrogate), learner(surrogate=surrogate, **options), episodes)
        < 1e-10
    )


def test_compiles(episodes):
    batch, small = (
        Batch({name: leaf[0] for name, leaf in episodes.query.x.items()}),
        rl.Navigation2D(horizon=2),
    )
    policy = rl.GaussianPolicy(2, [], 2).double()
    loss, params = rl.PolicyLoss(policy, small, 2, rl.dice), dict(policy.named_parameters())
    compiled = torch.compile(
        lambda params: loss(params, {}, batch), backend="eager", fullgraph=True
    )
    assert torch.allclose(compiled(params), loss(params, {}, batch), atol=1e-12)


def test_the_surrogates_differ_in_the_meta_gradient(episodes):
    assert difference(learner(), learner(surrogate=rl.reinforce), episodes) > 1e-6


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (outer.MAML, {"rule": inner.MetaSGD(0.01)}),
        (outer.MAML, {"rule": inner.LearnedRate(inner.SGD(0.1), "tensor")}),
        (outer.MTNet, {"wrap": inner.t_net}),
        (outer.TNet, {"wrap": inner.t_net}),
        (outer.MAML, {"estimator": outer.EvolutionStrategies(2, inner=True)}),
        (outer.FOMAML, {}),
        (outer.MAML, {"fast": "network"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_other_methods_are_another_argument(method, options, episodes):
    gradient = learner(method, **options).estimate(episodes, KEYS).gradient
    assert all(leaf.isfinite().all() and leaf.any() for leaf in tree_leaves(gradient))


def test_an_adapted_policy_is_a_policy_of_its_own(episodes):
    adapted = learner().adapt(episodes.support, keys=KEYS)
    policy = adapted[1]
    assert isinstance(policy, rl.Policy)
    assert all(
        torch.equal(param, adapted.params[name][1]) for name, param in policy.named_parameters()
    )


def test_the_value_is_minus_the_mean_return(episodes):
    of = learner()
    batch = Batch({name: leaf[0] for name, leaf in episodes.query.x.items()})
    params = dict(of.model.named_parameters())
    rewards = of.query_loss.loss.rollout(params, {}, batch).rewards
    assert torch.allclose(of.query_loss.loss(params, {}, batch), -rewards.sum(0).mean())
    assert evaluate(of, TASKS, num_tasks=2, num_steps=0)["loss"].values.min() > 0


def test_every_step_and_the_query_set_have_trajectories_of_their_own(episodes):
    of = learner()
    params = dict(of.model.named_parameters())
    support, query = (
        Batch({name: leaf[0] for name, leaf in batch.x.items()}) for batch in episodes
    )
    loss = of.support_loss.loss
    actions = [loss.rollout(params, {}, support, step).actions for step in (0, 0, 1)]
    actions.append(loss.rollout(params, {}, query, 0).actions)
    assert torch.equal(actions[0], actions[1])
    assert not torch.isclose(actions[0], actions[2]).any()
    assert not torch.isclose(actions[0], actions[3]).any()


def test_advantages_are_normalised_over_all_steps_and_trajectories(episodes):
    seen = []

    def surrogate(log_probs, old_log_probs, gains):
        seen.append(gains)
        return log_probs * gains

    policy = rl.GaussianPolicy(2, [4], 2).double()
    loss = rl.PolicyLoss(policy, ENVIRONMENT, 2, surrogate, baseline=False)
    loss(
        dict(policy.named_parameters()),
        {},
        Batch({name: leaf[0] for name, leaf in episodes.support.x.items()}),
    )
    assert seen[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert seen[0].square().mean().item() == pytest.approx(1, abs=1e-4)


def test_a_bandit_is_learned():
    torch.manual_seed(0)
    policy = rl.CategoricalPolicy(1, [], 2)
    tasks = rl.FiniteTasks(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    options = {"num_support": 10, "num_query": 20, "surrogate": rl.dice, "discount": 1.0}
    of = outer.MAML(
        policy,
        None,
        inner.LearnedRate(inner.SGD(0.1)),
        num_steps=1,
        **rl.policy_gradient(policy, rl.bandit(2), **options),
    )
    optimizer = torch.optim.Adam(of.parameters(), lr=0.3)
    fit(of, tasks, optimizer, 20, meta_batch_size=10, progress=False)
    assert evaluate(of, tasks, num_tasks=50)["loss"].values.mean() < -0.9


def test_pickles():
    loss = rl.PolicyLoss(rl.GaussianPolicy(2, [], 2), ENVIRONMENT, surrogate=rl.dice)
    assert pickle.loads(pickle.dumps(loss)).surrogate is rl.dice


def test_bad_input(episodes):
    policy = rl.GaussianPolicy(2, [], 2)
    with pytest.raises(
        TypeError,
        match=r"environment must be an Environment; got .*\. Write Navigation2D\(\.\.\.\)",
    ):
        rl.PolicyLoss(policy, rl.Navigation2D)
    with pytest.raises(ValueError, match="discount must be from 0 to 1; got 2"):
        rl.policy_gradient(policy, ENVIRONMENT, discount=2)
    with pytest.raises(
        TypeError,
        match=r"batch must hold a dict of 'task' and 'key'; got Tensor\. Sample tasks from",
    ):
        rl.PolicyLoss(policy, ENVIRONMENT)({}, {}, Batch(torch.zeros(2)))


def test_a_policy_acts_as_the_environment_is_acted_on():
    for policy, environment in (
        (rl.GaussianPolicy(2, [4], 1), rl.Navigation2D()),
        (rl.CategoricalPolicy(1, [], 2), rl.bandit(3)),
    ):
        wanted = (
            f"policy's action_size must be {environment.action_size}, as .*; got "
            f"{policy.action_size}. Give"
        )
        with pytest.raises(ValueError, match=wanted):
            rl.PolicyLoss(policy, environment)


@pytest.mark.parametrize(
    "estimator", [outer.Unrolled(), outer.ForwardMode(), outer.EvolutionStrategies(2)], ids=repr
)
def test_tables_run_under_every_derivative(estimator):
    policy, tasks = (
        rl.CategoricalPolicy(1, [], 3).double(),
        rl.FiniteTasks(torch.rand(4, 1, 3).double()),
    )
    options = {"learn_init": False} if isinstance(estimator, outer.ForwardMode) else {}
    losses = rl.policy_gradient(policy, rl.bandit(3, horizon=2), num_support=4, num_query=4)
    rule = inner.LearnedRate(inner.SGD(0.1))
    of = outer.MetaLearner(
        policy, None, rule, num_steps=2, estimator=estimator, **losses, **options
    )
    assert of(tasks.sample(2)).isfinite()
