import torch

from metalearn.data import ClassImages, MiniBatches, RandomFlip

IMAGES = ClassImages(
    [torch.full((count, 4, 4), 10 * label, dtype=torch.uint8) for label, count in enumerate([3, 1, 6])]
)


def test_labels_are_those_of_the_images_and_all_images_are_drawn():
    episode = MiniBatches(IMAGES, 50).sample(40, generator=torch.Generator().manual_seed(0))
    x, y, _ = episode.query
    assert x.shape == (40, 50, 1, 4, 4)
    assert torch.equal((255 * x[:, :, 0, 0, 0]).round().long(), 10 * y)
    share = torch.bincount(y.flatten()) / y.numel()
    torch.testing.assert_close(share, torch.tensor([0.3, 0.1, 0.6]), atol=0.03, rtol=0)
    assert episode.support.x is x


def test_a_generator_decides():
    batches = MiniBatches(IMAGES, 5, transform=RandomFlip())
    first, second = (batches.sample(2, generator=torch.Generator().manual_seed(3)).query for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.y, second.y)
