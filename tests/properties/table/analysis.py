"""The analyses of trained learners."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st

from metalearn import analysis, baselines, functional, inner, models, outer
from metalearn.types import Batch
from tests.cases import sine_learner
from tests.properties.entry import Entry
from tests.properties.strategies import (
    COUNTS,
    GENERATORS,
    UNKNOWN_PATTERNS,
    classifications,
    damaged,
    regressions,
)

LEARNER = {"learner": st.builds(sine_learner, num_steps=st.just(1))}
EPISODES = {
    "episodes": regressions(num_tasks=st.just(3)),
    "num_tasks": st.integers(1, 3),
    "generator": GENERATORS,
}
METRICS = st.sampled_from([{}, {"error": lambda output, target: (output - target).abs().mean()}])
WRONG_METRICS = {
    "error": lambda output, target: output - target,
    "text": lambda output, target: "x",
    "none": lambda output, target: None,
    "one": lambda output: output.mean(),
    "loss": torch.mean,
    "half": 3,
}
WRONG = {
    "episodes": damaged(regressions(num_tasks=st.just(3))),
    "metrics": st.sampled_from([{name: metric} for name, metric in WRONG_METRICS.items()]),
    "layers": UNKNOWN_PATTERNS,
    "names": UNKNOWN_PATTERNS,
    "frozen": UNKNOWN_PATTERNS,
    "num_tasks": st.just(9),
    "seed": st.sampled_from([2**63, 2**70]),
}
STEPS = st.sampled_from([None, 0, 2])
FUNCTIONS = frozenset({"metrics", "metric", "features"})


def plotted(result, /, **_):
    assert str(result)
    # whose interval is NaN for one task
    for evaluation in getattr(result, "evaluations", {}).values():
        assert all(summary.values.isfinite().all() for summary in evaluation.values())


def finite(distances, /, **_):
    assert distances.values.shape == distances.same_class.shape == distances.other_class.shape
    assert not (distances.same_class & distances.other_class).any()
    assert distances.values[distances.same_class | distances.other_class].isfinite().all()


def mini_batches(shape):
    return Batch(torch.ones(shape), torch.ones(shape))


def classifier():
    torch.manual_seed(0)
    return baselines.ProtoNet(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), 4, 3)


def t_net():
    model = inner.t_net(models.mlp(1, [3], 1))
    return outer.MTNet(model, functional.cross_entropy, inner.SGD(0.1), num_steps=1)


ENTRIES = {
    "layer_ablation": Entry(
        analysis.layer_ablation,
        LEARNER
        | EPISODES
        | {
            "layers": st.sampled_from([None, ["0", "2"], {"all": "*"}]),
            "num_steps": STEPS,
            "metrics": METRICS,
        },
        plotted,
        WRONG,
        functions=FUNCTIONS,
    ),
    "head_noise": Entry(
        analysis.head_noise,
        LEARNER
        | EPISODES
        | {
            "names": st.just("2"),
            "stds": st.lists(st.floats(0, 3), min_size=1, max_size=2),
            "num_steps": STEPS,
            "frozen": st.sampled_from([False, "0"]),
            "metrics": METRICS,
            "seed": COUNTS,
        },
        plotted,
        WRONG,
        functions=FUNCTIONS,
    ),
    "steps_curve": Entry(
        analysis.steps_curve,
        LEARNER
        | EPISODES
        | {"steps": st.sampled_from([[0], (1, 2), range(3)]), "metrics": METRICS},
        lambda curve, /, **_: curve.best(),
        WRONG,
        functions=FUNCTIONS,
    ),
    "label_permutations": Entry(
        analysis.label_permutations,
        {
            "episodes": classifications(),
            "num_tasks": st.just(1),
            "num_permutations": st.sampled_from([None, 2]),
            "num_steps": STEPS,
            "metric": st.just(functional.accuracy),
            "generator": GENERATORS,
            "learner": st.builds(classifier),
        },
        lambda result, /, **_: str(result),
        {
            "episodes": damaged(classifications()),
            "metric": st.sampled_from(
                [metric for name, metric in WRONG_METRICS.items() if name not in ("error", "loss")]
            ),
        },
        functions=FUNCTIONS,
    ),
    "layer_metrics": Entry(
        analysis.layer_metrics,
        {"learner": st.builds(t_net)},
        lambda metrics, /, **_: str(metrics),
        {"learner": st.builds(sine_learner)},
    ),
    "feature_distances": Entry(
        analysis.feature_distances,
        {"features": st.sampled_from([nn.Flatten(), lambda x: x]), "episodes": classifications()},
        finite,
        {
            "features": st.sampled_from(
                [lambda x: x[:1], lambda x: x.sum(), lambda x: 3, nn.Linear(2, 2), lambda x: x > 0]
            ),
            "episodes": damaged(classifications()),
        },
        functions=FUNCTIONS,
        always=False,
    ),
    "taylor_terms": Entry(
        analysis.taylor_terms,
        {
            "model": st.builds(lambda: nn.Linear(1, 1)),
            "criterion": st.just(F.mse_loss),
            "batches": st.sampled_from([(1, 2, 3, 1), (2, 3, 1, 1)]).map(mini_batches),
        },
        lambda terms, /, **_: terms.average_gradient["bias"].isfinite().all(),
        {
            "model": st.builds(lambda: nn.Linear(2, 1)),
            "criterion": st.sampled_from([lambda x: x.mean(), lambda x, y: x - y]),
            "batches": st.sampled_from([(2, 1, 3, 1), (2, 3), ()]).map(mini_batches),
        },
        functions=frozenset({"criterion"}),
    ),
}

EXCLUDED = dict.fromkeys(
    (
        "LayerAblation",
        "HeadNoise",
        "StepsCurve",
        "LabelPermutations",
        "FeatureDistances",
        "LayerMetrics",
        "TaylorTerms",
    ),
    "a result, made by the function of that name",
) | {"LayerMetric": "a part of layer_metrics' result"}
