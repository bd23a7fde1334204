import pytest
import torch

from metalearn import data


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(tasks=3, n=40):
    return torch.rand(tasks, n, 3, 8, 6, generator=generator(1))


def test_flips_mirror_about_half_of_the_images():
    x = images()
    flipped = data.RandomFlip()(x, generator())
    same, mirrored = ((flipped == other).flatten(2).all(2) for other in (x, x.flip(-1)))
    assert (same ^ mirrored).all()
    assert 0.35 < mirrored.float().mean() < 0.65


def test_crops_are_windows_of_the_padded_image():
    x = images()
    cropped = data.RandomCrop(2)(x, generator())
    padded = torch.nn.functional.pad(x, [2, 2, 2, 2])
    windows = torch.stack([padded[..., i : i + 8, j : j + 6] for i in range(5) for j in range(5)])
    matches = (windows == cropped).flatten(3).all(3)
    assert (matches.sum(0) == 1).all()
    assert matches.any(1).any(1).sum() > 15  # most of the 25 places occur


def test_every_place_of_a_crop_is_as_likely():
    x = 1 + torch.arange(48.0).reshape(8, 6).expand(5, 200, 1, 8, 6)
    cropped = data.RandomCrop(2)(x, generator())
    padded = torch.nn.functional.pad(x[:1, :1], [2, 2, 2, 2])
    windows = torch.stack([padded[..., i : i + 8, j : j + 6] for i in range(5) for j in range(5)])
    counts = (windows == cropped).flatten(3).all(3).sum((1, 2))
    assert counts.sum() == 1000
    assert 15 < counts.min() <= counts.max() < 70  # 40 on average


def test_a_generator_decides_and_the_global_one_rests():
    change = data.Compose(data.RandomCrop(1), data.RandomFlip())
    state = torch.get_rng_state()
    assert torch.equal(change(images(), generator(3)), change(images(), generator(3)))
    assert not torch.equal(change(images(), generator(3)), change(images(), generator(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_normalize_by_channel():
    x = images()
    expected = torch.stack(
        [(x[:, :, c] - m) / s for c, (m, s) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 3.0)])], 2
    )
    torch.testing.assert_close(data.Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))(x), expected)
    torch.testing.assert_close(data.Normalize(0.5, 2)(x), (x - 0.5) / 2)


def test_the_sampler_gives_its_generator():
    classes = data.ClassImages(
        torch.randint(256, (5, 9, 8, 8, 3), dtype=torch.uint8, generator=generator())
    )
    sampler = data.EpisodeSampler(
        classes, 3, 1, 2, transform=data.Compose(data.RandomCrop(2), data.RandomFlip())
    )
    first, again = (sampler.sample(4, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.query.x, again.query.x)
    plain = data.EpisodeSampler(classes, 3, 1, 2).sample(4, generator=generator(7))
    assert not torch.equal(first.query.x, plain.query.x)


BAD = [
    (lambda: data.RandomCrop(0), ValueError, "RandomCrop(padding=4)"),
    (lambda: data.Normalize((0.5, 0.5), 0.2), ValueError, "one for each mean"),
    (lambda: data.Normalize(0.5, 0), ValueError, "std must be positive"),
    (lambda: data.Normalize("0.5", 1), TypeError, "Normalize's mean"),
    (lambda: data.Compose(data.RandomFlip), TypeError, "RandomFlip()"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_numbers_and_images_that_do_not_fit():
    with pytest.raises(ValueError, match=r"Normalize's mean must be at least one number; got \(\)"):
        data.Normalize((), ())
    three = data.Normalize((0.1, 0.2, 0.3), (1, 1, 1))
    with pytest.raises(
        ValueError,
        match=r"have 3 channels; got 1 in images of shape \(2, 5, 1, 8, 8\)\. Write Normalize\(0",
    ):
        three(torch.zeros(2, 5, 1, 8, 8))
    with pytest.raises(TypeError, match="be a floating tensor .*; got torch.uint8"):
        three(torch.zeros(2, 5, 3, 8, 8, dtype=torch.uint8))
    for augment in (data.RandomFlip(), data.RandomCrop(1)):
        with pytest.raises(
            ValueError, match=r"images must be \[tasks, n, C, H, W\]; got shape \(3, 8, 8\)"
        ):
            augment(torch.zeros(3, 8, 8))
