"""White padding, plain grounds and contours, on drawn pictures whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.pictures import odd_pictures
from tasks.pictures.imaging import Pixels
from tasks.pictures.odd_pictures import (
    background,
    contours,
    hanging_together,
    inner_size,
    joined,
    pad,
    without_background,
)

SIZE = 96


def disc(ground: tuple[int, int, int], colour: tuple[int, int, int] = (180, 30, 30)) -> tuple[Pixels, Pixels]:
    """A disc on a plain ground, and where it is."""
    picture, mask = Image.new("RGB", (SIZE, SIZE), ground), Image.new("1", (SIZE, SIZE))
    for image, fill in ((picture, colour), (mask, 1)):
        ImageDraw.Draw(image).ellipse((28, 28, 68, 68), fill=fill)
    return np.asarray(picture), np.asarray(mask)


@pytest.mark.parametrize(
    ("size", "beyond", "inner"),
    [
        ((7351, 300), 2, (10, 256)),
        ((300, 5314), 2, (256, 14)),
        ((400, 200), 2, (256, 256)),
        ((401, 200), 2, (128, 256)),
        ((400, 200), None, (256, 256)),
        ((400, 200), 1, (128, 256)),
        ((200, 200), 1, (256, 256)),
        ((100_000, 1), 2, (1, 256)),
    ],
)
def test_only_extreme_aspects_keep_theirs(size: tuple[int, int], beyond: float | None, inner: tuple[int, int]) -> None:
    """Beyond the factor, not at it; never less than a pixel."""
    assert inner_size(*size, 256, 256, beyond) == inner


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300), st.integers(1, 300), st.floats(1, 10))
def test_a_padded_picture_fits_its_frame(width: int, height: int, rows: int, columns: int, beyond: float) -> None:
    """It touches two opposite sides of the frame, passes none, and turning everything turns the answer."""
    inner = inner_size(width, height, rows, columns, beyond)
    assert inner[0] <= rows
    assert inner[1] <= columns
    assert inner[0] == rows or inner[1] == columns
    turned = inner_size(height, width, columns, rows, beyond)
    assert max(abs(inner[0] - turned[1]), abs(inner[1] - turned[0])) <= (beyond == max(width / height, height / width))


def test_the_padding_is_white_and_even() -> None:
    """An odd rest goes to the far side; a picture of the frame's size is all of it."""
    picture = np.zeros((2, 3, 3), np.uint8)
    framed = pad(picture, 5, 3)
    assert (framed[:, 0, 0] == [255, 0, 0, 255, 255]).all()
    assert np.array_equal(pad(picture, 2, 3), picture)


@pytest.mark.parametrize("ground", [(250, 250, 250), (20, 20, 22), (40, 90, 200), (128, 128, 128)])
def test_a_plain_ground_becomes_white(ground: tuple[int, int, int]) -> None:
    """All of it and nothing of the object, whichever its colour."""
    picture, is_disc = disc(ground)
    cut = without_background(picture)
    assert np.array_equal(cut[is_disc], picture[is_disc])
    assert (cut[~is_disc] == 255).all()


@pytest.mark.parametrize("falls_off", ["to a side", "to the corners"])
def test_a_ground_may_be_lit_unevenly_and_be_noisy(falls_off: str) -> None:
    """Light that falls off by two fifths, and noise, change next to nothing."""
    picture, is_disc = disc((200, 200, 200))
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    light = 1 - 0.4 * (((x + 1) / 2) if falls_off == "to a side" else (x * x + y * y) / 2)
    noise = np.random.default_rng(3).normal(0, 1, picture.shape)
    found = background(np.clip(picture * light[:, :, None] + noise, 0, 255).astype(np.uint8))
    assert found is not None
    assert (found == ~is_disc).mean() > 0.99


def test_a_ground_that_is_white_but_at_the_corners() -> None:
    """Light that falls off to the corners only: the middle is white, and no lighter than white is expected."""
    picture, is_disc = disc((255, 255, 255))
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    light = np.clip(1.25 - 0.3 * (x * x + y * y), 0, 1)[:, :, None]
    found = background((picture * light).astype(np.uint8))
    assert found is not None
    assert (found == ~is_disc).mean() > 0.99


def test_what_an_object_encloses_stays_with_it() -> None:
    """The ground is what hangs together with the edge: the hole of a ring has its colour, but is not of it."""
    picture, is_disc = disc((240, 240, 240))
    holed = picture.copy()
    holed[40:56, 40:56] = 240
    assert np.array_equal(background(holed), ~is_disc)


def test_dust_is_ground_and_a_picture_of_nothing_stays() -> None:
    """Specks vanish with the ground; where nothing else is left there was no object to be cut out."""
    picture, is_disc = disc((240, 240, 240))
    dusty = picture.copy()
    dusty[5, 5] = dusty[80, 10] = 0
    assert np.array_equal(background(dusty), ~is_disc)
    empty = np.full((SIZE, SIZE, 3), 240, np.uint8)
    empty[5, 5] = 0
    assert background(empty) is None


def test_a_picture_without_a_plain_ground_stays_as_it_is() -> None:
    """Noise, a rough cloth, and two colours at the edge: nothing is guessed."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    cloth = np.where(disc((0, 0, 0))[1][:, :, None], 250, rng.normal(120, 14, (SIZE, SIZE, 1)))
    cloth = cloth.astype(np.uint8).repeat(3, axis=2)
    halves = np.full((SIZE, SIZE, 3), 230, np.uint8)
    halves[:, int(0.55 * SIZE) :] = (20, 60, 20)
    for picture in (noise, cloth, halves):
        assert np.array_equal(without_background(picture), picture)


def test_contours_lie_where_the_object_ends() -> None:
    """A closed line of black on white, no farther than two pixels from the disc's edge, and none elsewhere."""
    picture, _ = disc((230, 230, 230))
    is_line = contours(picture)[:, :, 0] == 0
    y, x = np.nonzero(is_line)
    assert np.abs(np.hypot(y - 48, x - 48) - 20).max() < 2
    middle = np.zeros_like(is_line)
    middle[48, 48] = True
    assert not hanging_together(~is_line, middle)[0].any(), "from the middle one cannot leave"


def test_a_flat_or_noisy_picture_has_no_contours() -> None:
    """What is below the noise is no edge, however little else there is."""
    noise = np.random.default_rng(7).normal(128, 2, (SIZE, SIZE, 1)).astype(np.uint8).repeat(3, axis=2)
    assert (contours(noise) == 255).all()


def test_weak_edges_count_only_beside_strong_ones() -> None:
    """Hysteresis: beside strong stripes, the end of one of them that fades is drawn, a step as faint alone is not."""
    grey = np.full((64, 96), 60, np.uint8)
    grey[:, :48] += 120 * (np.arange(48) // 6 % 2).astype(np.uint8)
    grey[:32, 80:] += 64  # on its own
    grey[32:, 42:48] = np.linspace(180, 124, 32).astype(np.uint8)[:, None]  # the last stripe fades
    is_line = contours(np.repeat(grey[:, :, None], 3, axis=2))[:, :, 0] == 0
    assert is_line[:, 6].all()
    assert is_line[58, 46:50].any()
    assert not is_line[:, 60:].any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (256, 3)])
@pytest.mark.parametrize("value", [0, 100, 255])
def test_tiny_and_flat_pictures_pass(shape: tuple[int, int], value: int) -> None:
    """The narrowest strip that padding leaves is a picture too."""
    picture = np.full((*shape, 3), value, np.uint8)
    assert np.array_equal(without_background(picture), picture)
    assert (contours(picture) == 255).all()


def grown(mask: np.ndarray, seeds: np.ndarray, diagonally: bool) -> np.ndarray:
    """``hanging_together`` step by step."""
    found = seeds.copy()
    steps = [(0, 1), (0, -1), (1, 0), (-1, 0)] + [(1, 1), (1, -1), (-1, 1), (-1, -1)] * diagonally
    while True:
        padded, before = np.pad(found, 1), found
        for dy, dx in steps:
            moved = padded[1 + dy : 1 + dy + mask.shape[0], 1 + dx : 1 + dx + mask.shape[1]]
            found = found | (moved & mask)
        if np.array_equal(found, before):
            return found


@given(st.integers(0, 2**32), st.floats(0.1, 0.9), st.booleans())
@settings(deadline=None)
def test_what_hangs_together_is_what_grows_together(seed: int, density: float, diagonally: bool) -> None:
    """Any mask, any seeds, by sides or by corners: the same as growing pixel by pixel."""
    rng = np.random.default_rng(seed)
    mask, seeds = rng.random((9, 11)) < density, rng.random((9, 11)) < 0.1
    assert np.array_equal(hanging_together(mask, seeds & mask, diagonally), grown(mask, seeds & mask, diagonally))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_joined_members_have_the_smallest_of_them(size: int, links: list[tuple[int, int]]) -> None:
    """The same components as one link after the other gives."""
    pairs = np.array([(a % size, b % size) for a, b in links], np.int64).reshape(-1, 2)
    parent = list(range(size))
    for a, b in pairs.tolist():
        low, high = sorted((parent[a], parent[b]))
        parent = [low if each == high else each for each in parent]
    assert joined(size, pairs[:, 0], pairs[:, 1]).tolist() == parent


def test_lab_is_what_the_standard_says() -> None:
    """White is 100, 0, 0; the primaries of sRGB to a tenth (IEC 61966-2-1 with CIE 15)."""
    pixels = np.array([[[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]], np.uint8)
    expected = [[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [0, 0, 0]]
    assert np.abs(odd_pictures.to_lab(pixels)[0] - expected).max() < 0.1
