# /// script
# requires-python = ">=3.11"
# dependencies = ["boat-torch==1.1.1", "higher==0.2.1", "torch==2.15.0", "numpy"]
# ///
"""BOAT 1.1.1: variants are its operations, such as "NGD+CG" or "VFO"."""

import tempfile
from collections.abc import Callable
from typing import Any

import boat_torch
import torch
import torch.nn as nn
from _bilevel import Bilevel, Loss, Tensors, serve
from torch import Tensor

STEPS = 10


class Vector(nn.Module):
    """A vector as a module."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self) -> Tensor:
        return self.value


def loss(data: Tensors, upper: Any, lower: Any, params: Any = None, *, level: Loss) -> Tensor:
    """Return a loss as BOAT calls it, with other parameters of the lower model if given."""
    values = lower() if params is None else params[0]
    return level(upper(), values, data)


def build(
    variant: str, problem: Bilevel, data: Tensors, hyper: Tensor, params: Tensor
) -> Callable[[], object]:
    upper, lower = Vector(hyper.detach()), Vector(params)
    operations, rate = variant.split("+"), problem.rate
    is_first_order = len(operations) == 1
    settings: dict[str, Any] = {
        "fo_op": operations[0] if is_first_order else None,
        "gm_op": None if is_first_order else [operations[0]],
        "na_op": None if is_first_order else [operations[1]],
        "lower_level_model": lower,
        "upper_level_model": upper,
        "lower_level_var": list(lower.parameters()),
        "upper_level_var": list(upper.parameters()),
        "lower_level_opt": torch.optim.SGD(lower.parameters(), rate),
        "upper_level_opt": torch.optim.Adam(upper.parameters(), problem.outer_rate),
        "lower_iters": STEPS,
        "device": "cpu",
        "loss_log_path": f"{tempfile.mkdtemp()}/losses.json",
        "accumulate_grad": False,
        "fo_ol_batch_input": False,
        "copy_last_param": True,  # the lower level goes on
        "return_grad": False,
        "GDA": {"alpha_init": 0.0, "alpha_decay": 0.1},
        "RGT": {"truncate_iter": 0},
        "CG": {"tolerance": 1e-10, "k": 10},
        "NS": {"tolerance": 1e-10, "k": 10},
        "FD": {"r": 1e-2},
        "VFO": {"y_hat_lr": rate, "eta": 0.5, "u1": 0.1},
        "VSO": {
            "z_loop": STEPS,
            "ll_l2_reg": 0.0,
            "ul_l2_reg": 0.0,
            "ul_ln_reg": 10.0,
            "reg_decay": 1.0,
            "z_lr": rate,
        },
        "MESO": {"eta": rate, "gamma_1": 1.0, "c0": 0.5, "y_hat_lr": rate},
        "PGDO": {
            "y_hat_lr": rate,
            "gamma_init": 1.0,
            "gamma_max": 100.0,
            "gamma_argmax_step": 1000,
            "update_y_ahead": False,
            "penalty": "difference",
        },
    }
    levels = {
        f"{name}_level_loss": {"function": f"{__name__}.loss", "params": {"level": level}}
        for name, level in (("lower", problem.inner), ("upper", problem.outer))
    }
    run = boat_torch.Problem(settings, levels)
    run.build_ll_solver().build_ul_solver()
    run.save_losses = lambda **_: None  # into a file, at every call
    count = 0

    def step() -> None:
        nonlocal count
        run.run_iter(data, data, count)
        count += 1

    return step


if __name__ == "__main__":
    serve(build)
