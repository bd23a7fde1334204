import numpy as np
import pytest
import torch

from metalearn.data._layout import as_uint8, channels_first, flatten


def pixels(*shape):
    """Images whose pixels are all different, or nearly."""
    return torch.arange(np.prod(shape)).reshape(shape).to(torch.uint8)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((2, 3, 6, 5), None, (6, 1, 6, 5)),
        ((2, 3, 4, 4), None, (6, 1, 4, 4)),
        ((2, 3, 6, 3), "HW", (6, 1, 6, 3)),
        ((2, 3, 6, 5, 3), None, (6, 3, 6, 5)),
        ((2, 3, 6, 5, 1), None, (6, 1, 6, 5)),
        ((2, 3, 4, 6, 5), None, (6, 4, 6, 5)),
        ((2, 3, 3, 6, 3), "CHW", (6, 3, 6, 3)),
        ((2, 3, 3, 6, 3), "HWC", (6, 3, 3, 6)),
    ],
)
@pytest.mark.parametrize("kind", ["tensor", "array", "list"])
def test_every_layout_becomes_channels_first(shape, layout, expected, kind):
    images = pixels(*shape)
    given = {"tensor": images, "array": images.numpy(), "list": list(images)}[kind]
    flat, num_images = flatten(given, layout)
    assert flat.shape == expected
    assert flat.is_contiguous()
    assert num_images == [3, 3]
    if layout == "HWC" or (layout is None and shape[-1] in (1, 3) and len(shape) == 5):
        assert torch.equal(flat.movedim(1, -1), images.flatten(0, 1))
    else:
        assert torch.equal(flat.flatten(), images.flatten())


def test_classes_of_different_size_stand_one_after_the_other():
    first, second = pixels(2, 6, 5), pixels(4, 6, 5)
    flat, num_images = flatten([first, second.numpy()], None)
    assert num_images == [2, 4]
    assert torch.equal(flat, torch.cat([first, second]).unsqueeze(1))


def test_arrays_share_memory_if_they_can():
    array = np.zeros((2, 6, 5), np.uint8)
    assert as_uint8("images", array).data_ptr() == array.ctypes.data
    array.flags.writeable = False
    assert as_uint8("images", array).data_ptr() != array.ctypes.data
    assert as_uint8("images", array[:, ::-1]).shape == (2, 6, 5)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            pixels(2, 3, 6, 5).float(),
            TypeError,
            r"got torch\.float32\. Pass .* write a data\.TaskDistribution\.$",
        ),
        (
            [np.zeros((2, 6, 5))],
            TypeError,
            r"images\[0\] must be a tensor or array of uint8; got float64",
        ),
        ([[1, 2]], TypeError, r"images\[0\] must be a tensor or array of uint8; got list"),
        ("images", TypeError, "images must be a tensor, an array or a list of them"),
        ([], ValueError, "images must hold at least one class; got an empty list"),
        (
            pixels(3, 6, 5),
            ValueError,
            r"images must be \[classes, per_class, H, W\].*; got shape \(3, 6, 5\)",
        ),
        ([pixels(6, 5)], ValueError, r"images\[0\] must be \[n, H, W\].*; got shape \(6, 5\)"),
        (
            [pixels(2, 6, 5), pixels(2, 6, 6)],
            ValueError,
            r"images\[1\] must hold images of shape \(6, 5\)",
        ),
        (
            [pixels(2, 6, 5), pixels(0, 6, 5)],
            ValueError,
            "at least one image for .*; got 1 empty of 2",
        ),
        (pixels(0, 3, 6, 5), ValueError, "at least one image for each class; got 0 empty of 0"),
        (
            pixels(2, 3, 5, 6, 7),
            ValueError,
            r"have 1, 3 or 4 channels, .*; got shape \(5, 6, 7\)\. Pass",
        ),
        (
            pixels(2, 3, 3, 6, 3),
            ValueError,
            r"either first or last.*layout='CHW'\) or layout='HWC'",
        ),
        (
            pixels(9, 6, 5, 3),
            ValueError,
            r"got shape \(5, 3\), which looks like .* without an axis for the",
        ),
    ],
)
def test_images_that_are_refused(images, error, message):
    with pytest.raises(error, match=message):
        flatten(images, None)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        (
            (2, 6, 5),
            "HWC",
            r"each image must have the axes HWC; got shape \(6, 5\)\. Leave layout out",
        ),
        (
            (2, 3, 6, 5),
            "HWC",
            r"each image must have 1, 3 or 4 channels, first or last; got shape \(3, 6, 5\)",
        ),
        ((2, 6, 5), "hw", r"layout must be one of .*; got 'hw'"),
    ],
)
def test_layouts_that_are_refused(shape, layout, message):
    with pytest.raises(ValueError, match=message):
        channels_first(pixels(*shape), layout)
