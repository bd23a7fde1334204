import numpy as np
import pytest
from PIL import Image

from metalearn.data._decoding import Decoding, decode_classes


@pytest.fixture
def file(tmp_path):
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(5, 8, 3)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_pixels_are_channels_first(file):
    pixels = Decoding((5, 8)).decode(file)
    assert np.array_equal(pixels.transpose(1, 2, 0).ravel(), np.arange(120))
    assert Decoding(4, "L").decode(file).shape == Decoding(4, "L").image_shape == (1, 4, 4)


def test_bytes_are_decoded_under_their_name(file):
    decoding = Decoding((3, 2))
    assert np.array_equal(decoding.decode("x", file.read_bytes()), decoding.decode(file))
    with pytest.raises(
        ValueError, match=r"^image 7 of x\.pkl must be a readable image; got Unidentified"
    ):
        decoding.decode("image 7 of x.pkl", b"damaged")


def test_a_name_for_each_way_to_decode():
    assert str(Decoding((5, 8), "L", Image.Resampling.NEAREST)) == "5x8-L-nearest"


def test_classes_keep_their_order():
    blocks = list(decode_classes(lambda number: np.full((1, 1, 1), number), [range(50), [7]]))
    assert [block.ravel().tolist() for block in blocks] == [list(range(50)), [7]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "size must be at least 1; got 0"),
        (((4, 4, 4),), TypeError, r"size must be an int or a pair \(height, width\)"),
        ((4, "CMYK"), ValueError, r"mode must be one of \['L', 'RGB', 'RGBA'\]; got 'CMYK'"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        Decoding(*arguments)
