"""Analyses from few-shot papers of layers, features, steps and labels.

Each function returns its numbers in an object whose method `plot` draws them.
"""

from metalearn.analysis._feature_distances import FeatureDistances, feature_distances
from metalearn.analysis._head_noise import HeadNoise, head_noise
from metalearn.analysis._label_permutations import LabelPermutations, label_permutations
from metalearn.analysis._layer_ablation import LayerAblation, layer_ablation
from metalearn.analysis._layer_metrics import LayerMetric, LayerMetrics, layer_metrics
from metalearn.analysis._steps_curve import StepsCurve, steps_curve
from metalearn.analysis._taylor_terms import TaylorTerms, taylor_terms

__all__ = [
    "layer_ablation",
    "LayerAblation",
    "head_noise",
    "HeadNoise",
    "steps_curve",
    "StepsCurve",
    "label_permutations",
    "LabelPermutations",
    "layer_metrics",
    "LayerMetrics",
    "LayerMetric",
    "feature_distances",
    "FeatureDistances",
    "TaylorTerms",
    "taylor_terms",
]
