"""Estimators and learners: whatever episodes come, losses have the right shape and are finite or
flagged."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st

from metalearn import functional, inner, models, outer
from metalearn._tree import tree_leaves
from metalearn.types import Batch, Episode
from tests.cases import sine_episodes, sine_learner
from tests.properties.entry import Entry
from tests.properties.strategies import (
    BOOLS,
    COUNTS,
    ESTIMATORS,
    PATTERNS,
    PLAIN_RULES,
    POSITIVE,
    RULES,
    UNKNOWN_PATTERNS,
    damaged,
    regressions,
)

EPISODES = regressions()
WRONG_EPISODES = damaged(regressions())
WRONG_SUPPORT = damaged(regressions().map(lambda episodes: episodes.support))
TRUNCATE = st.sampled_from([None, 1, 2, 5])
HIGHER = {
    "order": st.sampled_from([1, 2]),
    "truncate": TRUNCATE,
    "multi_step": st.sampled_from([None, outer.MultiStep()]),
}
MODELS = st.builds(lambda: models.mlp(1, [2], 1).double())
CRITERIA = st.sampled_from([F.mse_loss, nn.HuberLoss()])
MODULES = {
    "model": st.sampled_from(
        [nn.Linear, nn.Sequential(), nn.BatchNorm1d(1), nn.Sequential(nn.BatchNorm1d(1))]
    )
}
PARTS = {"model": MODELS, "criterion": CRITERIA, "num_steps": st.integers(1, 3)}
WRONG_FAST = {"fast": UNKNOWN_PATTERNS, "learn_init": UNKNOWN_PATTERNS}


def flagged(estimate, num_tasks):
    assert estimate.loss.shape == (num_tasks,)
    finite = estimate.diagnostics["finite"].bool()
    assert estimate.loss[finite].isfinite().all()
    if finite.all():
        assert all(leaf.isfinite().all() for leaf in tree_leaves(estimate.gradient))


def works(learner, /, **_):
    """Estimate, adapt, judge and predict."""
    episodes = sine_episodes(num_tasks=2)
    flagged(learner.estimate(episodes), 2)
    adapted = learner.adapt(episodes.support)
    assert adapted.loss(episodes.query).shape == (2,)
    assert adapted(episodes.query.x).shape == episodes.query.y.shape


def estimates(estimator, /, **_):
    learner = sine_learner(num_steps=2, estimator=estimator)
    flagged(learner.estimate(sine_episodes(num_tasks=2)), 2)


def estimator(kind, wrong=None, /, **arguments):
    return Entry(kind, arguments, estimates, wrong or {})


def method(build, wrong=None, **more):
    wrong = MODULES | WRONG_FAST | (wrong or {})
    arguments = PARTS | {"rule": PLAIN_RULES} | more
    return Entry(
        build, arguments, works, wrong, functions=frozenset({"criterion", "fast", "learn_init"})
    )


def of_all_tasks(adapted, /, support, **_):
    assert len(adapted) == len(support.y)


def called(learner, episodes, keys):
    loss = learner(episodes, keys=keys)
    assert loss.shape == ()
    loss.backward()
    return learner.estimate(episodes, keys)


def of_learner(name):
    return lambda learner, **arguments: getattr(learner, name)(**arguments)


def pure(support_loss, query_loss, rule, estimator, num_steps):
    learner, episodes = sine_learner(), sine_episodes()
    meta = learner.meta._replace(
        rule=rule.init_meta(learner.meta.init) if isinstance(rule, inner.UpdateRule) else {}
    )
    gradient = outer.meta_gradient(support_loss, query_loss, rule, estimator, num_steps)
    episode = type(episodes)(*(type(part)(part.x[0], part.y[0]) for part in episodes))
    return gradient(meta, episode, torch.tensor(0))


def solved(solver, /, **_):
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    x, residual, _ = solver(lambda vector: matrix @ vector, torch.ones(2))
    assert x.shape == residual.shape == (2,)


def compared(learner, episodes, chunk_sizes, compile, rounds):
    return str(
        outer.compare_batching(
            learner, episodes, chunk_sizes=chunk_sizes, compile=compile, rounds=rounds
        )
    )


def mixed(learners, episodes):
    if isinstance(episodes, Episode):
        parts = (Batch(*((leaf,) * len(learners) for leaf in part)) for part in episodes)
        episodes = Episode(*parts)
    assert outer.Mixture(learners)(episodes).shape == ()


def stacked(learners, episodes):
    assert outer.Replicas(learners)(episodes).shape == (len(learners),)


LEARNER = st.builds(
    sine_learner, num_steps=st.just(2), estimator=ESTIMATORS.filter(lambda e: "shared" in e.reaches)
)
LOSSES = sine_learner().problem
TWO_TASKS = regressions(num_tasks=st.just(2))
NO_KEYS = st.none()

ADAPTED = st.builds(lambda: sine_learner(num_steps=2).adapt(sine_episodes(num_tasks=2).support))
TWO_TASKS = regressions(num_tasks=st.just(2))


def shaped(output, /, argument, **_):
    assert output.shape[:1] == (2,)


def one_each(losses, /, **_):
    assert losses.shape == (2,)


def of_adapted(name):
    return lambda adapted, argument: getattr(adapted, name)(argument)


ENTRIES = {
    "Unrolled": estimator(outer.Unrolled, **HIGHER),
    "Stepwise": estimator(
        outer.Stepwise, **HIGHER, segment=COUNTS, blocks=st.sampled_from([None, "*", "0"])
    ),
    "MultiStep": Entry(
        outer.MultiStep,
        {"num_iterations": COUNTS, "floor": st.floats(0.01, 0.9)},
        lambda made, /, **_: estimates(outer.Unrolled(multi_step=made)),
    ),
    "ParameterDifference": estimator(outer.ParameterDifference, keep_state=BOOLS),
    "Implicit": estimator(
        outer.Implicit,
        {"epsilon": st.sampled_from([0.0, "small"]), "tolerance": st.sampled_from([0.0, "small"])},
        strength=POSITIVE,
        solver=st.sampled_from([outer.CG(2), outer.Neumann(2)]),
        proximal=st.sampled_from(["every_step", "last_step"]),
        system_strength=st.sampled_from([None, 2.0]),
        epsilon=st.sampled_from([None, 0.01]),
        warm_start=BOOLS,
        tolerance=st.sampled_from([None, 0.1]),
    ),
    "OneStep": Entry(outer.OneStep, {"epsilon": POSITIVE}),
    "Joint": Entry(outer.Joint, {}),
    "Penalty": Entry(outer.Penalty, {"weight": POSITIVE, "warm_start": BOOLS}),
    "CG": Entry(
        outer.CG, {"num_steps": COUNTS, "damping": POSITIVE, "tolerance": POSITIVE}, solved
    ),
    "Neumann": Entry(outer.Neumann, {"num_steps": COUNTS, "rate": POSITIVE}, solved),
    "Direct": Entry(outer.Direct, {}, solved),
    "ForwardMode": estimator(outer.ForwardMode, max_directions=st.integers(200, 300)),
    "OnlineForwardMode": Entry(outer.OnlineForwardMode, {"max_directions": st.integers(200, 300)}),
    "ForwardGradient": estimator(outer.ForwardGradient, num_directions=COUNTS),
    "EvolutionStrategies": estimator(
        outer.EvolutionStrategies, num_pairs=COUNTS, std=POSITIVE, inner=BOOLS
    ),
    "PersistentES": estimator(
        outer.PersistentES,
        {"horizon": st.sampled_from([0, 1.5])},
        num_pairs=COUNTS,
        std=POSITIVE,
        horizon=st.sampled_from([6, 12]),
    ),
    "ClipPerTask": estimator(
        outer.ClipPerTask,
        {"on": st.sampled_from(["rule", "head"])},
        estimator=ESTIMATORS,
        value=POSITIVE,
        on=st.just("init"),
    ),
    "Continued": estimator(
        outer.Continued,
        {"horizon": st.sampled_from([0, 1.5])},
        estimator=st.sampled_from(
            [outer.Unrolled(), outer.Stepwise(), outer.ForwardMode(), outer.ForwardGradient()]
        ),
        horizon=st.sampled_from([6, 12]),
        staggered=BOOLS,
    ),
    "SkipDiverged": estimator(outer.SkipDiverged, estimator=ESTIMATORS),
    "meta_gradient": Entry(
        pure,
        {
            "support_loss": st.just(LOSSES.support_loss),
            "query_loss": st.just(LOSSES.query_loss),
            "rule": RULES,
            "estimator": st.sampled_from([outer.Unrolled(), outer.Stepwise(order=1)]),
            "num_steps": st.integers(1, 3),
        },
        functions=frozenset({"support_loss", "query_loss"}),
    ),
    "MetaLearner": Entry(
        outer.MetaLearner,
        PARTS
        | {
            "rule": RULES,
            "estimator": st.sampled_from([outer.Unrolled(), outer.Stepwise()]),
            "fast": PATTERNS,
            "learn_init": st.sampled_from([True, False, "*"]),
            "support_criterion": st.sampled_from([None, F.l1_loss]),
            "support_loss": st.none(),
            "query_loss": st.none(),
            "support_batches": st.sampled_from([None, functional.SampledBatches(2)]),
            "batching": st.sampled_from(["vmap", "loop"]),
            "chunk_size": st.sampled_from([None, 1, 2]),
            "compile": st.just(False),
        },
        works,
        MODULES
        | WRONG_FAST
        | {"estimator": ESTIMATORS, "support_batches": st.sampled_from([2, 5, 7])},
        functions=frozenset(
            {
                "criterion",
                "support_criterion",
                "support_loss",
                "query_loss",
                "compile",
                "fast",
                "learn_init",
            }
        ),
        always=False,
    ),
    "MetaLearner.forward": Entry(
        lambda learner, episodes, keys: called(learner, episodes, keys),
        {"episodes": EPISODES, "keys": NO_KEYS},
        lambda estimate, /, episodes, **_: flagged(estimate, len(episodes.support.y)),
        {"episodes": WRONG_EPISODES},
        {"learner": LEARNER},
    ),
    "MetaLearner.adapt": Entry(
        of_learner("adapt"),
        {
            "support": EPISODES.map(lambda episodes: episodes.support),
            "num_steps": st.integers(0, 3),
            "keys": NO_KEYS,
        },
        of_all_tasks,
        {"support": WRONG_SUPPORT},
        {"learner": LEARNER},
    ),
    "MetaLearner.set_batching": Entry(
        of_learner("set_batching"),
        {
            "batching": st.sampled_from(["vmap", "loop"]),
            "chunk_size": COUNTS,
            "compile": st.just(False),
        },
        given={"learner": LEARNER},
        always=False,  # a loop takes no chunk_size
    ),
    "AdaptedModels.__call__": Entry(
        of_adapted("__call__"),
        {"argument": TWO_TASKS.map(lambda episodes: episodes.query.x)},
        shaped,
        {"argument": damaged(TWO_TASKS.map(lambda episodes: episodes.query))},
        {"adapted": ADAPTED},
    ),
    "AdaptedModels.loss": Entry(
        of_adapted("loss"),
        {"argument": TWO_TASKS.map(lambda episodes: episodes.query)},
        one_each,
        {"argument": damaged(TWO_TASKS.map(lambda episodes: episodes.query))},
        {"adapted": ADAPTED},
    ),
    "AdaptedModels.__getitem__": Entry(
        of_adapted("__getitem__"), {"argument": st.integers(-2, 1)}, given={"adapted": ADAPTED}
    ),
    "Replicas": Entry(
        stacked,
        {
            "learners": st.lists(
                st.builds(sine_learner, num_steps=st.just(1)), min_size=1, max_size=2
            ),
            "episodes": TWO_TASKS,
        },
        wrong={"episodes": WRONG_EPISODES, "learners": st.builds(lambda: [sine_learner(), 3])},
    ),
    "Mixture": Entry(
        mixed,
        {
            "learners": st.lists(
                st.builds(sine_learner, num_steps=st.just(1)), min_size=1, max_size=2
            ),
            "episodes": TWO_TASKS,
        },
        wrong={"learners": st.builds(lambda: [sine_learner(), 3])},
    ),
    "compare_batching": Entry(
        compared,
        {
            "learner": st.builds(sine_learner, num_steps=st.just(1)),
            "episodes": TWO_TASKS,
            "chunk_sizes": st.just([]),
            "compile": st.just(False),
            "rounds": st.just(1),
        },
        wrong={
            "episodes": WRONG_EPISODES,
            "chunk_sizes": st.sampled_from([[3], [1], [0], ["2"], 2]),
        },
        always=False,
    ),
    "MAML": method(outer.MAML, fast=PATTERNS),
    "FOMAML": method(outer.FOMAML, fast=PATTERNS),
    "ANIL": method(outer.ANIL),
    "Reptile": method(outer.Reptile, keep_state=BOOLS),
    "IMAML": method(outer.IMAML, strength=POSITIVE),
    "HyperRepresentation": method(outer.HyperRepresentation),
    "TNet": method(outer.TNet, model=MODELS.map(inner.t_net)),
    "MTNet": method(outer.MTNet, model=MODELS.map(inner.t_net)),
}

EXCLUDED = {
    "MetaGradient": "abstract",
    "Traits": "a record of flags that an estimator states",
    "Solver": "abstract",
    "Solution": "a plain tuple, made by solvers",
    "CompiledStep": "made by compiled_step",
    "NotCompiledWarning": "a warning",
    "BatchingTable": "made by compare_batching",
    "BatchingTime": "made by compare_batching",
}
