"""Models for many tasks at once: what replaces `vmap` where a model's layers are known."""

from metalearn._layers._memo import Memo
from metalearn._layers._network import Network
from metalearn._layers._sequence import (
    HOOKS,
    KNOWN,
    Inputs,
    Layers,
    global_hooks,
    has_global_hooks,
    is_changed,
    layer_of,
)

__all__ = [
    "HOOKS",
    "KNOWN",
    "Inputs",
    "Layers",
    "Memo",
    "Network",
    "global_hooks",
    "has_global_hooks",
    "is_changed",
    "layer_of",
]
