# /// script
# requires-python = ">=3.11"
# dependencies = ["parallel-metalearn==0.5.6", "torch==2.15.0", "numpy", "scipy"]
# ///
"""parallel-metalearn 0.5.6, also imported as `metalearn`: `vmap` over tasks, with its own loop."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
from _torch import criterion, network, system, tasks
from _worker import System, serve
from _workload import Arrays, Workload
from metalearn.algorithms.MAML import MAML
from metalearn.algorithms.Reptile import Reptile
from metalearn.inner_optimizers.optimizers import InnerSGD
from metalearn.loss.base import BaseLoss
from metalearn.model_wrappers.MAMLWrapper import MAML_Model


class Ignoring(nn.Module):
    """A part of the network that ignores the package's keyword arguments."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.part(x)


class Loss(BaseLoss):
    """The workload's criterion in the package's protocol; the metric is the loss again."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.criterion = criterion(workload)

    def forward(self, out_dict: Any, targets: Any, **kwargs: Any) -> Any:
        loss = self.criterion(out_dict["logits"], targets["labels"])
        return loss, loss.detach()


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    episodes = tasks(arrays, device)
    layers = list(network(workload, arrays, device))  # its own converter fails on batch norm
    model = MAML_Model(Ignoring(nn.Sequential(*layers[:-1])), Ignoring(layers[-1]))
    inner = InnerSGD(
        model.get_fast_weights(),
        first_order=workload.method != "maml",
        inner_lr=workload.lr,
        max_inner_steps=workload.num_steps,
        learn_lr=False,
    )
    learner = (Reptile if workload.method == "reptile" else MAML)(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        inner_optimizer=inner,
        support_loss_fn=Loss(workload),
        inner_steps=workload.num_steps,
        chunk_size=workload.num_tasks,
        device=torch.device(device),
    )
    batch = (
        episodes.support_x,
        {"labels": episodes.support_y},
        episodes.query_x,
        {"labels": episodes.query_y},
    )

    def forever() -> Iterator[Any]:
        while True:
            yield batch

    batches = forever()
    return system(
        workload, lambda: learner.step(batches, training=True), model.parameters(), device
    )


if __name__ == "__main__":
    serve(build)
