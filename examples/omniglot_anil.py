"""MAML, first-order MAML and ANIL on 5-way 1-shot Omniglot, which differ in one argument.

Run it as `python examples/omniglot_anil.py images.npz`, with an archive for
`ClassImages.from_npz`, or with a folder for torchvision's Omniglot, which is downloaded if needed.
"""

import sys

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, functional, inner, models, outer


def classes(source: str, split: str) -> data.ClassImages:
    if not source.endswith(".npz"):
        return data.omniglot(source, split, download=True)
    images = data.ClassImages.from_npz(source, split)
    return images.rotated() if split == "train" else images


def main(source: str, num_iterations: int = 1_000, num_tasks: int = 600) -> None:
    train = data.EpisodeSampler(classes(source, "train"), n_way=5, k_shot=1, num_query=5)
    test = data.EpisodeSampler(classes(source, "test"), n_way=5, k_shot=1, num_query=5)
    for method in (outer.MAML, outer.FOMAML, outer.ANIL):
        torch.manual_seed(0)
        model = models.conv4(1, 5, num_filters=32)
        learner = method(model, F.cross_entropy, inner.SGD(lr=0.4), num_steps=1)
        optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
        fit(learner, train, optimizer, num_iterations, meta_batch_size=16)
        metrics = {"accuracy": functional.accuracy}
        print(method.__name__, evaluate(learner, test, num_tasks=num_tasks, metrics=metrics))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
