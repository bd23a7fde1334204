"""MAML on sine waves: train, adapt to 100 unseen tasks at once, measure.

About three minutes on a CPU.
"""

import sys

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, inner, models, outer


def main(num_iterations: int) -> None:
    torch.manual_seed(0)
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    model = models.mlp(1, [40, 40], 1)  # any nn.Module
    learner = outer.MAML(model, F.mse_loss, inner.SGD(lr=0.01), num_steps=5)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)

    # fit is the loop `optimizer.zero_grad(); learner(tasks.sample(25)).backward();
    # optimizer.step()` with a progress bar, validation and the best state kept.
    history = fit(learner, tasks, optimizer, num_iterations, meta_batch_size=25, validate=tasks)
    learner.load_state_dict(history.best_state)

    for num_steps in (0, 1, 5, 10):
        print(evaluate(learner, tasks, num_tasks=600, num_steps=num_steps))

    # One adapted model leaves the library as a plain module.
    episodes = tasks.sample(100)
    adapted = learner.adapt(episodes.support)
    print(adapted.loss(episodes.query).mean(), adapted[0](episodes.query.x[0]).shape)


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
