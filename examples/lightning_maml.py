"""MAML in PyTorch Lightning, where the learner is a module like any other.

It needs `pip install .[integrations]`.
"""

import logging
import sys

import lightning
import torch
import torch.nn.functional as F

from metalearn import data, inner, models, outer


class SineMAML(lightning.LightningModule):
    """A module whose training and validation loss is the learner's output on episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.learner = outer.MAML(
            models.mlp(1, [40, 40], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=5
        )

    def training_step(self, episodes, batch_index):
        return self.learner(episodes)

    def validation_step(self, episodes, batch_index):
        self.log("validation loss", self.learner(episodes), batch_size=len(episodes.query.x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(num_iterations: int) -> None:
    lightning.seed_everything(0, verbose=False)
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    trainer = lightning.Trainer(
        max_steps=num_iterations,
        val_check_interval=max(1, num_iterations // 10),
        check_val_every_n_epoch=None,  # a stream of tasks has no epochs
        limit_val_batches=2,
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    module = SineMAML()
    trainer.fit(module, tasks.batches(25), tasks.batches(100))
    print(f"loss after adaptation {trainer.callback_metrics['validation loss']:.3f}")

    episodes = tasks.sample(100, device=module.device)
    adapted = module.learner.adapt(episodes.support)
    print(f"of 100 new tasks {adapted.loss(episodes.query).mean():.3f}")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    main(num_iterations=int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
