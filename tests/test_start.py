"""What a fresh process has to load before its first meta-step."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import torch, torch.nn.functional as F
from metalearn import data, inner, models, outer

tasks = data.Sinusoid(k_shot=10, num_query=10)
model, rule = models.mlp(1, [40, 40], 1), inner.SGD(0.01)
learner = outer.MAML(model, F.mse_loss, rule, num_steps=5, {options})
learner(tasks.sample(25)).backward()
learner.adapt(tasks.sample(25).support)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


@pytest.mark.parametrize("options", ["", "batching='loop'"])
def test_nothing_of_the_compiler_is_imported_where_nothing_is_compiled(options):
    command = [sys.executable, "-c", PROGRAM.format(options=options)]
    call = subprocess.run(command, capture_output=True, text=True, check=True)
    assert call.stdout.strip() == "[]"
