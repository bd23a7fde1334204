"""The analyses of few-shot papers: what adapts, how far features move, how many steps, which
labels.

Each function returns its numbers, with a method `plot` that draws them.
"""

from metalearn.analysis._feature_distances import FeatureDistances, feature_distances
from metalearn.analysis._head_noise import HeadNoise, head_noise
from metalearn.analysis._label_permutations import LabelPermutations, label_permutations
from metalearn.analysis._layer_ablation import LayerAblation, layer_ablation
from metalearn.analysis._steps_curve import StepsCurve, steps_curve

__all__ = [
    "layer_ablation",
    "LayerAblation",
    "head_noise",
    "HeadNoise",
    "steps_curve",
    "StepsCurve",
    "label_permutations",
    "LabelPermutations",
    "feature_distances",
    "FeatureDistances",
]
