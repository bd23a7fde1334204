"""Layers for many tasks at once: what takes the place of `vmap` for models whose layers are all
known.
"""

from metalearn._layers._criteria import known_losses
from metalearn._layers._memo import Memo
from metalearn._layers._sequence import Inputs, Layers

__all__ = ["Inputs", "Layers", "Memo", "known_losses"]
