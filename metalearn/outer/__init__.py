"""Meta-gradients: how the outer gradient is estimated, and the learner that trains with it.

To read the code, begin with README.md beside this file: it follows an episode from the learner to
the rule.
"""

from metalearn.outer._adapted import AdaptedModels
from metalearn.outer._base import MetaGradient, Traits, meta_gradient
from metalearn.outer._clip_per_task import ClipPerTask
from metalearn.outer._compare_batching import BatchingTable, BatchingTime, compare_batching
from metalearn.outer._compile import NotCompiledWarning
from metalearn.outer._compiled_step import CompiledStep
from metalearn.outer._continued import Continued
from metalearn.outer._evolution_strategies import EvolutionStrategies
from metalearn.outer._forward_gradient import ForwardGradient
from metalearn.outer._forward_mode import ForwardMode, OnlineForwardMode
from metalearn.outer._implicit import Implicit
from metalearn.outer._joint import Joint
from metalearn.outer._learner import MetaLearner
from metalearn.outer._methods import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    HyperRepresentation,
    MTNet,
    Reptile,
    TNet,
)
from metalearn.outer._mixture import Mixture
from metalearn.outer._multi_step import MultiStep
from metalearn.outer._one_step import OneStep
from metalearn.outer._parameter_difference import ParameterDifference
from metalearn.outer._penalty import Penalty
from metalearn.outer._persistent_es import PersistentES
from metalearn.outer._replicas import Replicas
from metalearn.outer._skip_diverged import SkipDiverged
from metalearn.outer._solvers import CG, Direct, Neumann, Solution, Solver
from metalearn.outer._stepwise import Stepwise
from metalearn.outer._unrolled import Unrolled

__all__ = [
    "MetaGradient",
    "Traits",
    "meta_gradient",
    "Unrolled",
    "Stepwise",
    "MultiStep",
    "ParameterDifference",
    "Implicit",
    "Solver",
    "Solution",
    "CG",
    "Neumann",
    "Direct",
    "OneStep",
    "Joint",
    "Penalty",
    "ForwardMode",
    "OnlineForwardMode",
    "ForwardGradient",
    "EvolutionStrategies",
    "Continued",
    "PersistentES",
    "ClipPerTask",
    "SkipDiverged",
    "MetaLearner",
    "CompiledStep",
    "NotCompiledWarning",
    "AdaptedModels",
    "Replicas",
    "Mixture",
    "compare_batching",
    "BatchingTable",
    "BatchingTime",
    "MAML",
    "FOMAML",
    "ANIL",
    "Reptile",
    "IMAML",
    "HyperRepresentation",
    "TNet",
    "MTNet",
]
