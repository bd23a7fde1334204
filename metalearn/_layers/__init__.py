"""Models for many tasks at once: what replaces `vmap` where a model's layers are known."""

from metalearn._layers._memo import Memo
from metalearn._layers._network import Network
from metalearn._layers._sequence import (
    KNOWN,
    Inputs,
    Layers,
    has_global_hooks,
    is_changed,
    layer_of,
)

__all__ = [
    "KNOWN",
    "Inputs",
    "Layers",
    "Memo",
    "Network",
    "has_global_hooks",
    "is_changed",
    "layer_of",
]
