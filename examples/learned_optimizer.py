"""TURTLE learns an update rule on sine waves, which becomes an ordinary PyTorch optimizer."""

import sys

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, inner, models, outer


def main(num_iterations: int) -> None:
    torch.manual_seed(0)
    tasks = data.Sinusoid(k_shot=10, num_query=50)
    turtle = inner.Turtle(("grad", "grad_history", "step"), hidden=(20, 20), lr=0.01)
    rule = inner.Clipped(inner.LearnedRate(turtle, per="parameter"), value=10.0)
    learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, rule, num_steps=5)
    fit(
        learner,
        tasks,
        torch.optim.Adam(learner.parameters(), lr=1e-3),
        num_iterations,
        meta_batch_size=4,
    )
    print(evaluate(learner, tasks, num_tasks=600))

    wave = tasks.sample(1)
    x, y = wave.support.x[0], wave.support.y[0]
    model = learner.adapt(wave.support, num_steps=0)[0]  # the learned start, as a plain module
    optimizer = inner.as_optimizer(rule, learner.meta.rule, model.named_parameters())
    for step in range(5):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.4f}")
    print(f"unseen points: {F.mse_loss(model(wave.query.x[0]), wave.query.y[0]).item():.4f}")


if __name__ == "__main__":
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
