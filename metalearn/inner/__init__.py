"""Update rules: how one task's gradient becomes a change of its parameters, and the inner loop over them."""

from metalearn.inner._base import UpdateRule
from metalearn.inner._clipped import Clipped
from metalearn.inner._learned_rate import LearnedRate, MetaSGD
from metalearn.inner._sgd import SGD
from metalearn.inner._step import Step, adapt, step

__all__ = ["UpdateRule", "Step", "step", "adapt", "SGD", "LearnedRate", "MetaSGD", "Clipped"]
