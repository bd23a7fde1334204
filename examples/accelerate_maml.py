"""MAML with Hugging Face Accelerate: `accelerate launch examples/accelerate_maml.py`.

It runs on any hardware after `pip install .[integrations]`. Every process draws its own tasks;
Accelerate averages the meta-gradients.
"""

import sys

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed

from metalearn import data, inner, models, outer


def main(num_iterations: int) -> None:
    accelerator = Accelerator()
    set_seed(0)
    learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=5)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    learner, optimizer = accelerator.prepare(learner, optimizer)

    set_seed(0, device_specific=True)  # tasks differ between processes, the start does not
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    for episodes in tasks.batches(25, num_batches=num_iterations, device=accelerator.device):
        accelerator.backward(learner(episodes))
        optimizer.step()
        optimizer.zero_grad()

    episodes = tasks.sample(100, device=accelerator.device)
    adapted = accelerator.unwrap_model(learner).adapt(episodes.support)
    errors = accelerator.gather(adapted.loss(episodes.query))
    accelerator.print(f"loss after adaptation {errors.mean():.3f} over {len(errors)} new tasks")


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
