import pytest
import torch

from metalearn.data import ClassImages, EpisodeSampler, MiniBatches

IMAGES = ClassImages(torch.arange(12 * 4, dtype=torch.uint8).reshape(3, 4, 2, 2))
SOURCES = [
    lambda transform: EpisodeSampler(IMAGES, 2, 1, 2, transform),
    lambda transform: MiniBatches(IMAGES, 5, transform),
]


@pytest.mark.parametrize("source", SOURCES)
class TestAllThatDrawImages:
    def test_a_transform_sees_and_returns_whole_episodes(self, source):
        seen = []
        episode = source(lambda images: seen.append(images.shape) or 1 - images).sample(3)
        assert [tuple(shape[2:]) for shape in seen] == [(1, 2, 2)]
        assert episode.query.x.min() >= 1 - 47 / 255

    def test_a_transform_that_loses_images_is_refused(self, source):
        with pytest.raises(ValueError, match="transform must keep the first two axes"):
            source(lambda images: images[:, 1:]).sample(3)
        with pytest.raises(TypeError, match="transform must return a tensor"):
            source(lambda images: [images]).sample(3)

    def test_bad_transforms(self, source):
        with pytest.raises(TypeError, match="transform must be a function of images"):
            source("flip")
