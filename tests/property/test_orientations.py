"""Laws of the eight orientations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from tasks.pictures import imaging

ORIENTATION = st.integers(1, 8)
PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))


@given(PIXELS, ORIENTATION, ORIENTATION)
def test_composing_is_doing_one_after_the_other(pixels: imaging.Pixels, first: int, then: int) -> None:
    """compose(a, b) turns a picture as a and after it b."""
    both = imaging.make_upright(imaging.make_upright(pixels, first), then)
    assert np.array_equal(imaging.make_upright(pixels, imaging.compose(first, then)), both)


@given(PIXELS, ORIENTATION)
def test_the_inverse_undoes(pixels: imaging.Pixels, orientation: int) -> None:
    """A turn and its inverse leave every pixel where it was, in either order."""
    inverse = imaging.invert(orientation)
    assert np.array_equal(imaging.make_upright(imaging.make_upright(pixels, orientation), inverse), pixels)
    assert imaging.compose(orientation, inverse) == imaging.compose(inverse, orientation) == 1


@given(ORIENTATION, ORIENTATION, ORIENTATION)
def test_composition_is_associative(first: int, second: int, third: int) -> None:
    """The orientations are a group."""
    compose = imaging.compose
    assert compose(compose(first, second), third) == compose(first, compose(second, third))


@given(PIXELS)
def test_four_quarter_turns_are_identity(pixels: imaging.Pixels) -> None:
    """Value 8 is one counter-clockwise quarter, as numpy.rot90, and value 6 three of them."""
    assert np.array_equal(imaging.make_upright(pixels, 8), np.rot90(pixels, 1))
    assert np.array_equal(imaging.make_upright(pixels, 6), np.rot90(pixels, 3))
    turned = pixels
    for _ in range(4):
        turned = imaging.make_upright(turned, 8)
    assert np.array_equal(turned, pixels)


@given(st.integers(1, 9), st.integers(1, 9), ORIENTATION)
def test_the_upright_size_is_that_of_the_turned_pixels(width: int, height: int, orientation: int) -> None:
    """upright_size says what make_upright does to the sides."""
    turned = imaging.make_upright(np.zeros((height, width), np.uint8), orientation)
    assert imaging.upright_size(width, height, orientation) == (turned.shape[1], turned.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_calls_upright(orientation: int) -> None:
    """Each EXIF value turns a picture as ImageOps.exif_transpose does."""
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(imaging.make_upright(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))
