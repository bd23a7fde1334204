"""Gradient-based meta-learning for PyTorch as one small algebra."""

from metalearn import data, functional, inner, models, outer, testing, types

__version__ = "0.1.0"

__all__ = ["data", "functional", "inner", "models", "outer", "testing", "types"]
