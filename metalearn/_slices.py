"""Slices of tensors, including sparse ones, which PyTorch cannot slice."""

import torch
from torch import Tensor

BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)


def part(tensor: Tensor, index: slice, axis: int = 0) -> Tensor:
    """Return the part of a tensor that a slice takes along an axis."""
    if tensor.layout == torch.strided:
        return tensor[(*(slice(None),) * axis, index)]
    if tensor.layout != torch.sparse_coo and tensor.dim() > 2 and axis == 0:
        return _of_matrices(tensor, index)
    rows = torch.arange(tensor.shape[axis], device=tensor.device)[index]
    return tensor.to_sparse_coo().index_select(axis, rows).to_sparse(layout=tensor.layout)


def _of_matrices(tensor: Tensor, index: slice) -> Tensor:
    """Slice the batch of matrices in a compressed tensor."""
    by_rows = tensor.layout in BY_ROWS
    compressed = tensor.crow_indices() if by_rows else tensor.ccol_indices()
    plain = tensor.col_indices() if by_rows else tensor.row_indices()
    parts = compressed[index], plain[index], tensor.values()[index]
    size = [len(parts[0]), *tensor.shape[1:]]
    return torch.sparse_compressed_tensor(
        *parts, size, layout=tensor.layout, check_invariants=False
    )
