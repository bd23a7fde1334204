"""Pure functions: random numbers, criteria, losses made from modules, and derivatives."""

from metalearn._modules import call_copy
from metalearn.functional._criteria import accuracy, cross_entropy, own_loss
from metalearn.functional._derivatives import grad_and_value, vjp
from metalearn.functional._drawn_batches import SampledBatches, ShuffledBatches
from metalearn.functional._given_batches import GivenBatches, IndexedBatches
from metalearn.functional._keys import derive_key, draw_keys, normal, safe_sqrt, uniform
from metalearn.functional._losses import ModelLoss, ModuleLoss, OnQuery, OnSupport
from metalearn.functional._support_batches import DealtBatches, SupportBatches

__all__ = [
    "DealtBatches",
    "GivenBatches",
    "IndexedBatches",
    "ModelLoss",
    "ModuleLoss",
    "OnQuery",
    "OnSupport",
    "SampledBatches",
    "ShuffledBatches",
    "SupportBatches",
    "accuracy",
    "call_copy",
    "cross_entropy",
    "derive_key",
    "draw_keys",
    "grad_and_value",
    "normal",
    "own_loss",
    "safe_sqrt",
    "uniform",
    "vjp",
]
