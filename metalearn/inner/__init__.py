"""Update rules, which turn a task's gradient into an update, and the inner loop over them."""

from metalearn.inner._adam import Adam
from metalearn.inner._adamw import AdamW
from metalearn.inner._as_optimizer import RuleOptimizer, as_optimizer
from metalearn.inner._base import UpdateRule
from metalearn.inner._clipped import Clipped
from metalearn.inner._cosine import Cosine
from metalearn.inner._gradient_transform import GradientTransform
from metalearn.inner._groups import Groups
from metalearn.inner._kronecker import KroneckerLinear, KroneckerNetwork
from metalearn.inner._kronecker_rnn import KroneckerRNN
from metalearn.inner._learned import Learned
from metalearn.inner._learned_rate import LearnedRate, MetaSGD
from metalearn.inner._linear_optimizer import LinearOptimizer
from metalearn.inner._low_rank import LowRank
from metalearn.inner._lstm import LSTM
from metalearn.inner._masked import Masked, adapted_fraction, kept_fraction
from metalearn.inner._meta_curvature import MetaCurvature
from metalearn.inner._momentum import Momentum, Nesterov
from metalearn.inner._rated import Rated
from metalearn.inner._rmsprop import RMSProp
from metalearn.inner._scheduled import Scheduled
from metalearn.inner._self_adapting import SelfAdapting
from metalearn.inner._sgd import SGD
from metalearn.inner._step import Step, adapt, step
from metalearn.inner._t_net import t_net
from metalearn.inner._turtle import Turtle
from metalearn.inner._warm_up import WarmUp
from metalearn.inner._weight_decay import WeightDecay
from metalearn.inner._wrapper import Wrapper

__all__ = [
    "UpdateRule",
    "Rated",
    "Wrapper",
    "Step",
    "step",
    "adapt",
    "as_optimizer",
    "RuleOptimizer",
    "SGD",
    "Momentum",
    "Nesterov",
    "Adam",
    "AdamW",
    "RMSProp",
    "LearnedRate",
    "MetaSGD",
    "Learned",
    "Clipped",
    "WeightDecay",
    "Scheduled",
    "WarmUp",
    "Cosine",
    "Groups",
    "Masked",
    "adapted_fraction",
    "kept_fraction",
    "t_net",
    "LSTM",
    "Turtle",
    "GradientTransform",
    "LinearOptimizer",
    "KroneckerLinear",
    "KroneckerNetwork",
    "KroneckerRNN",
    "LowRank",
    "MetaCurvature",
    "SelfAdapting",
]
