"""A small learner of the classes of small images, and what the analyses of it share."""

import torch
import torch.nn.functional as F

from metalearn import data, functional, inner, models, outer


def tasks():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 8, 8, 8), dtype=torch.uint8, generator=generator)
    return data.EpisodeSampler(data.ClassImages(images), n_way=3, k_shot=2, num_query=2)


def learner():
    torch.manual_seed(0)
    model = models.conv4(1, 3, num_filters=4, num_layers=2, image_size=8)
    return outer.MAML(model, F.cross_entropy, inner.SGD(0.5), num_steps=2)


def options(num_tasks=6):
    generator = torch.Generator().manual_seed(1)
    return {
        "num_tasks": num_tasks,
        "metrics": {"accuracy": functional.accuracy},
        "generator": generator,
    }
