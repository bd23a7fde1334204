"""Throughput of two processes against one, one thread each: `python -m benchmarks.processes`.

MAML on a Conv-4 with 32 filters, 5-way 5-shot, random images; the meta-batch is shared by the
processes, each on its own core. One process and all of them take turns with the same
iterations.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from metalearn import data, fit, inner, keep_large_blocks, models, outer


def train(num_iterations: int, meta_batch_size: int, wrap: bool) -> float:
    """Return the seconds that some iterations of `fit` take."""
    torch.manual_seed(0)
    learner = outer.MAML(
        models.conv4(1, 5, num_filters=32), F.cross_entropy, inner.SGD(0.1), num_steps=1
    )
    wrapped = DistributedDataParallel(learner) if wrap else learner
    images = data.ClassImages(torch.randint(256, (50, 20, 28, 28), dtype=torch.uint8))
    tasks, optimizer = data.EpisodeSampler(images, 5, 5, 15), torch.optim.Adam(learner.parameters())
    options = {
        "meta_batch_size": meta_batch_size,
        "progress": False,
        "generator": torch.Generator().manual_seed(0),
    }
    fit(wrapped, tasks, optimizer, 2, **options)  # type: ignore[arg-type]
    if wrap:
        dist.barrier()
    start = time.perf_counter()
    fit(wrapped, tasks, optimizer, num_iterations, **options)  # type: ignore[arg-type]
    return time.perf_counter() - start


def work(rank: int, folder: Path, arguments: argparse.Namespace) -> None:
    """Take turns with the other processes: the first one alone, then all together."""
    torch.set_num_threads(1)
    keep_large_blocks()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=arguments.processes)
    ratios = []
    for index in range(arguments.rounds):
        alone = train(arguments.iterations, arguments.tasks, wrap=False) if rank == 0 else 0.0
        dist.barrier()
        together = train(arguments.iterations, arguments.tasks, wrap=True)
        if rank == 0:
            ratios.append(alone / together)
            print(
                (
                    f"round {index + 1}: {alone:.2f} s alone, {together:.2f} s together, "
                    f"{ratios[-1]:.2f} x"
                ),
                flush=True,
            )
    if rank == 0:
        print(
            f"\n{arguments.processes} processes: {statistics.median(ratios):.2f} x the "
            "throughput of one (median)"
        )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=8, help="tasks in a meta-batch (%(default)s)")
    parser.add_argument(
        "--iterations", type=int, default=20, help="iterations in a round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            work, args=(Path(folder), arguments), nprocs=arguments.processes, start_method="spawn"
        )


if __name__ == "__main__":
    main()
