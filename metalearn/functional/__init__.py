"""Pure functions: keyed random numbers, criteria of classification, and losses made from modules."""

from metalearn._modules import call_copy
from metalearn.functional._criteria import accuracy, cross_entropy
from metalearn.functional._keys import derive_key, draw_keys, normal, safe_sqrt, uniform
from metalearn.functional._losses import ModelLoss, ModuleLoss, OnQuery, OnSupport

__all__ = [
    "ModelLoss",
    "ModuleLoss",
    "OnQuery",
    "OnSupport",
    "accuracy",
    "call_copy",
    "cross_entropy",
    "derive_key",
    "draw_keys",
    "normal",
    "safe_sqrt",
    "uniform",
]
