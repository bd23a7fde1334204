# /// script
# requires-python = ">=3.11"
# dependencies = ["torchopt==0.7.3", "torch==2.15.0", "numpy"]
# ///
"""TorchOpt 0.7.3: its few-shot example's loop over tasks, with its optimizers and state dicts."""

import torch
import torchopt
from _torch import criterion, network, system, tasks
from _worker import System, serve
from _workload import Arrays, Workload


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    episodes, model, loss_of = (
        tasks(arrays, device),
        network(workload, arrays, device),
        criterion(workload),
    )
    kind = torchopt.MetaAdam if workload.rule == "adam" else torchopt.MetaSGD
    inner = kind(model, lr=workload.lr)
    params = list(model.parameters())

    def meta_step() -> None:
        model_state = torchopt.extract_state_dict(model, by="reference")
        inner_state = torchopt.extract_state_dict(inner, by="reference")
        losses = []
        for support_x, support_y, query_x, query_y in zip(*episodes, strict=True):
            for _ in range(workload.num_steps):
                inner.step(loss_of(model(support_x), support_y))
            losses.append(loss_of(model(query_x), query_y))
            torchopt.recover_state_dict(model, model_state)
            torchopt.recover_state_dict(inner, inner_state)
        torch.stack(losses).mean().backward()

    return system(workload, meta_step, params, device)


if __name__ == "__main__":
    serve(build)
