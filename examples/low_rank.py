"""A torchvision ResNet whose low-rank adapters and head adapt, while tasks share the rest.

Run it as `python examples/low_rank.py images.npz`, with an archive for `ClassImages.from_npz`. To
keep the rest of a pretrained network constant, take
`resnet18(weights="DEFAULT").requires_grad_(False)`, give it a new `fc`, and write "frozen" in place
of "support", which keeps its batch statistics.
"""

import sys

import torch
import torch.nn as nn
import torchvision

from metalearn import data, evaluate, fit, functional, inner, models, outer


class LowRank(nn.Module):
    """W + B A with low-rank matrices (Hu et al., "LoRA", ICLR 2022), initially W."""

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.A, self.B = (
            nn.Parameter(torch.randn(rank, columns) / columns**0.5),
            nn.Parameter(torch.zeros(rows, rank)),
        )

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.B @ self.A).view_as(weight)


def with_adapters(network: nn.Module, rank: int = 4) -> nn.Module:
    """Give the last blocks' convolutions adapters."""
    for layer in network.layer4.modules():
        if isinstance(layer, nn.Conv2d):
            nn.utils.parametrize.register_parametrization(
                layer, "weight", LowRank(layer.weight, rank)
            )
    return models.use_batch_statistics(network, "support")  # no query example sees another one


def main(source: str, num_iterations: int = 200, num_tasks: int = 200) -> None:
    tasks = {
        split: data.EpisodeSampler(
            data.ClassImages.from_npz(source, split),
            n_way=5,
            k_shot=1,
            num_query=2,
            transform=lambda images: images.expand(-1, -1, 3, -1, -1),
        )
        for split in ("train", "test")
    }
    torch.manual_seed(0)
    model = with_adapters(torchvision.models.resnet18(num_classes=5))
    nn.init.zeros_(model.fc.weight)
    fast = ["layer4.*.parametrizations.weight.0.*", "fc"]
    learner = outer.MAML(model, functional.cross_entropy, inner.SGD(lr=0.1), num_steps=1, fast=fast)
    adapting = sum(start.numel() for start in learner.meta.init.values())
    print(
        f"{adapting:,} of {sum(param.numel() for param in model.parameters()):,} parameters adapt"
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    fit(learner, tasks["train"], optimizer, num_iterations, meta_batch_size=2)
    print(
        evaluate(
            learner, tasks["test"], num_tasks=num_tasks, metrics={"accuracy": functional.accuracy}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
