"""Bilevel problems side by side with other libraries."""
