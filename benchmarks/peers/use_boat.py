# /// script
# requires-python = ">=3.11"
# dependencies = ["boat-torch==1.1.1", "higher==0.2.1", "torch==2.15.0", "numpy"]
# ///
"""BOAT 1.1.1: gradient descent through higher ("NGD"), differentiated to its start ("IAD")."""

import tempfile
from typing import Any

import boat_torch
import torch
from _torch import criterion, inner_optimizer, network, system, tasks
from _worker import System, serve
from _workload import Arrays, Workload


def loss(data: Any, upper: Any, lower: Any, params: Any = None, *, criterion: Any) -> torch.Tensor:
    """Return a loss as BOAT calls it, with other parameters of the lower model if given."""
    output = lower(data["x"]) if params is None else lower(data["x"], params=params)
    return criterion(output, data["y"])


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    support_x, support_y, query_x, query_y = (part[0] for part in tasks(arrays, device))
    model = network(workload, arrays, device)
    params = list(model.parameters())
    settings: dict[str, Any] = {
        "fo_op": None,
        "gm_op": ["NGD"],
        "na_op": ["IAD"],
        "lower_level_model": model,
        "upper_level_model": model,
        "lower_level_var": params,
        "upper_level_var": params,
        "lower_level_opt": inner_optimizer(workload, model),
        "upper_level_opt": torch.optim.SGD(params),
        "lower_iters": workload.num_steps,
        "device": device,
        "loss_log_path": f"{tempfile.mkdtemp()}/losses.json",
        "accumulate_grad": False,
        "copy_last_param": False,
        "return_grad": True,
        "GDA": {"alpha_init": 0.0, "alpha_decay": 0.1},
        "RGT": {"truncate_iter": 0},
    }
    judged = {"function": f"{__name__}.loss", "params": {"criterion": criterion(workload)}}
    problem = boat_torch.Problem(settings, {"lower_level_loss": judged, "upper_level_loss": judged})
    problem.build_ll_solver().build_ul_solver()
    support = {"x": support_x, "y": support_y}
    query = {"x": query_x, "y": query_y}

    def meta_step() -> None:
        problem.run_iter(support, query, 0)

    return system(workload, meta_step, params, device)


if __name__ == "__main__":
    serve(build)
