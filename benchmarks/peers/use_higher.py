# /// script
# requires-python = ">=3.11"
# dependencies = ["higher==0.2.1", "torch==2.15.0", "numpy"]
# ///
"""higher 0.2.1: the loop over tasks of its example, backward task by task."""

import higher
from _torch import criterion, inner_optimizer, network, system, tasks
from _worker import System, serve
from _workload import Arrays, Workload


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    episodes, model, loss_of = (
        tasks(arrays, device),
        network(workload, arrays, device),
        criterion(workload),
    )
    optimizer = inner_optimizer(workload, model)

    def meta_step() -> None:
        for support_x, support_y, query_x, query_y in zip(*episodes, strict=True):
            with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (
                fast,
                inner,
            ):
                for _ in range(workload.num_steps):
                    inner.step(loss_of(fast(support_x), support_y))
                (loss_of(fast(query_x), query_y) / len(episodes.query_x)).backward()

    return system(workload, meta_step, model.parameters(), device)


if __name__ == "__main__":
    serve(build)
