"""A checksum of tasks, which tells whether two evaluations used the same ones."""

import math
import zlib

import torch
from torch import Tensor

from metalearn._tree import tree_leaves
from metalearn.types import Episode

MOST_ELEMENTS = 4096
"""Number of elements read from one task's tensor: enough to tell images apart, at under 1 % of the
time."""


def fingerprint(batch: Episode, before: int = 0) -> int:
    """Return a checksum of episodes and those before them, however they are batched.

    Args:
        batch: Episodes, with a leading task axis.
        before: Checksum of the episodes before them.
    """
    tasks = torch.cat([_bytes(leaf) for leaf in tree_leaves(batch)], dim=1)
    return zlib.crc32(tasks.cpu().numpy().tobytes(), before)


def _bytes(leaf: Tensor) -> Tensor:
    """Return each task's elements as bytes `[num_tasks, num_bytes]`, sampled in large tensors."""
    if leaf.layout != torch.strided:
        return _of_sparse(leaf.detach().to_sparse_coo().coalesce()).view(torch.uint8)
    size = math.prod(leaf.shape[1:])
    # An odd spacing does not align with the rows of an image.
    chosen = leaf.detach().reshape(len(leaf), size)[:, :: size // MOST_ELEMENTS | 1]
    return chosen.contiguous().view(torch.uint8)


def _of_sparse(leaf: Tensor) -> Tensor:
    """Return a checksum of every task's nonzero elements, `[num_tasks, 1]`."""
    task, *places = leaf.indices()
    values = leaf.values().double().reshape(len(task), -1)
    position = torch.zeros_like(task)
    for place, size in zip(places, leaf.shape[1:], strict=False):
        position = position * size + place
    columns = torch.arange(values.shape[1], device=leaf.device)
    position = position[:, None] * len(columns) + columns
    # Integer sums do not depend on order, and odd factors lose no information.
    terms = values.view(torch.int64) * (2 * position + 1)
    return terms.new_zeros(len(leaf), 1).index_add_(0, task, terms.sum(1, keepdim=True))
