"""The learner under `DistributedDataParallel` on two processes gives the gradient of one process on all tasks."""

import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from metalearn import inner
from tests.cases import keys, sine_episodes, sine_learner, task


def shard(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    learner = sine_learner(inner.MetaSGD(0.01), fast=["2", "4"])
    part = slice(2 * rank, 2 * rank + 2)
    episodes = task(sine_episodes(num_tasks=4), part)
    parallel = DistributedDataParallel(learner)
    parallel(episodes, keys=keys(4)[part]).backward()
    torch.save([param.grad for param in learner.parameters()], f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo's file store needs POSIX")
def test_two_processes_agree_with_one(tmp_path):
    mp.spawn(shard, args=(tmp_path,), nprocs=2)
    learner = sine_learner(inner.MetaSGD(0.01), fast=["2", "4"])
    learner(sine_episodes(num_tasks=4), keys=keys(4)).backward()
    for rank in range(2):
        grads = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for grad, param in zip(grads, learner.parameters(), strict=True):
            torch.testing.assert_close(grad, param.grad, rtol=1e-12, atol=1e-14)
