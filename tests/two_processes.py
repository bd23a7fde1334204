"""What tests in two processes share."""

import sys

import pytest
import torch
import torch.multiprocessing as mp

FORKED = [
    pytest.mark.skipif(sys.platform != "linux", reason="a fork saves the import of PyTorch"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
"""Marks of such tests."""


def logs_of_two(one_of_two, folder):
    """Call `one_of_two(rank, folder)` in two processes, and load the `<rank>.pt` they write."""
    mp.start_processes(one_of_two, args=(folder,), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
