"""What a mark is, and what stood there instead: two pictures laid over each other."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.duplicates.marks import is_mark
from tasks.duplicates.registering import Planes

SIDE_PX = 192
Change = Callable[[Planes], Planes]


def scene(seed: int) -> Planes:
    """Structure at every scale, as light as a photograph."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize((SIDE_PX, SIDE_PX), 3), float)
        for cells in (4, 12, 40, 120)
    ]
    return np.asarray((np.mean(layers, axis=0) - 128) * 1.6 + 128, np.float32).clip(0, 255)


def disc(x: int, y: int, radius: int) -> Planes:
    """1 within, 0 without."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    return (np.hypot(rows - y, columns - x) < radius).astype(np.float32)


def painted(cover: Planes, paint: Planes | float) -> Change:
    return lambda plane: plane * (1 - cover) + cover * paint


def words(x: int, y: int, size: int) -> Planes:
    """Where letters are, 0 to 1."""
    image = Image.new("L", (SIDE_PX, SIDE_PX))
    ImageDraw.Draw(image).text((x, y), "SAMPLE", 255, font_size=size)
    return np.asarray(image, np.float32) / 255


def box(left: int, top: int, right: int, bottom: int) -> Planes:
    cover = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    cover[top:bottom, left:right] = 1
    return cover


def noisy(plane: Planes) -> Planes:
    return plane + np.random.default_rng(9).normal(0, 2, plane.shape).astype(np.float32)


MARKS: dict[str, Change] = {
    "nothing": lambda plane: plane,
    "noise": noisy,
    "white words": painted(words(20, 80, 36), 255),
    "small dark words": painted(words(120, 175, 12), 0),
    "translucent words": painted(0.5 * words(10, 70, 48), 255),
    "a large translucent disc": painted(0.4 * disc(96, 96, 40), 255),
    "a plate in a corner": painted(box(150, 150, 192, 192), 230),
    "a plate near a corner": painted(box(4, 150, 60, 188), 20),
    "a curve of gamma 1.6": lambda plane: 255 * (plane / 255) ** 1.6,
    "brighter, and burnt": lambda plane: (1.4 * plane).clip(0, 255),
    "more contrast, and burnt": lambda plane: (1.5 * (plane - 128) + 128).clip(0, 255),
}
NO_MARKS: dict[str, Change] = {
    "somebody": painted(disc(96, 120, 12), scene(5)),
    "somebody large": painted(disc(60, 100, 40), scene(5)),
    "a silhouette": painted(disc(120, 60, 14), 10),
    "a bright ball": painted(disc(120, 60, 14), 250),
    "a box amid the picture": painted(box(70, 70, 110, 110), 230),
    "somebody in a corner": painted(disc(192, 192, 45), scene(5) / 3),
    "somebody at the lower edge": painted(disc(96, 192, 25), scene(5)),
}


@pytest.mark.parametrize("is_swapped", [False, True])
@pytest.mark.parametrize("change", MARKS)
def test_marks_and_tones_are_told(change: str, is_swapped: bool) -> None:
    """Strokes, what lets the picture through, plates in corners, and any tone curve."""
    pair = (scene(1), MARKS[change](scene(1)))
    assert is_mark([pair[::-1] if is_swapped else pair])


@pytest.mark.parametrize("is_swapped", [False, True])
@pytest.mark.parametrize("change", NO_MARKS)
def test_what_covers_the_picture_is_no_mark(change: str, is_swapped: bool) -> None:
    """Whoever came before the same background, on whichever of the two."""
    pair = (scene(1), noisy(NO_MARKS[change](scene(1))))
    assert not is_mark([pair[::-1] if is_swapped else pair])


def test_somebody_else_in_the_same_place_is_no_mark() -> None:
    """Even in the same outline, whose edges both pictures have."""
    cover = disc(100, 90, 30)
    assert not is_mark([(painted(cover, scene(5))(scene(1)), painted(cover, scene(6) / 2)(scene(1)))])


def test_a_silhouette_on_a_plain_ground_is_no_tone_curve() -> None:
    """That all that is dark became light would explain it: such a curve falls, and none that falls is believed."""
    sky = np.asarray(200 + 30 * np.linspace(0, 1, SIDE_PX)[:, None] + scene(2) / 64, np.float32)
    assert not is_mark([(sky, painted(disc(80, 80, 20), 20)(sky))])


def narrow(seed: int) -> Planes:
    """A scene of few tones, as grass is."""
    return np.asarray(150 + (scene(seed) - 128) / 5, np.float32)


@pytest.mark.parametrize("exposure", [0.8, 1.2])
def test_somebody_at_another_exposure_is_no_mark(exposure: float) -> None:
    """Nor by a curve that makes all tones nearly one, and so leaves little of anybody."""
    for plain, person in ((narrow(1), scene(5) / 3), (scene(1), scene(5)), (scene(2), np.float32(15))):
        other = painted(disc(96, 110, 28), person)(plain)
        assert not is_mark([(plain, (exposure * other).clip(0, 255).astype(np.float32))])


@pytest.mark.parametrize("gamma", [0.7, 1.6])
def test_other_tones_on_a_plain_ground_are_no_subject(gamma: float) -> None:
    """A thing cut out on white: nine tenths of the picture are equal, and the thing is not."""
    cut_out = painted(disc(96, 96, 35), 40 + scene(3) / 2)(np.full((SIDE_PX, SIDE_PX), 254, np.float32))
    assert is_mark([(cut_out, np.asarray(255 * (cut_out / 255) ** gamma, np.float32))])


def test_a_bad_overlay_proves_nothing() -> None:
    """Where all differs nothing stands out; of several overlays the best counts."""
    one, other = scene(1), painted(disc(96, 120, 25), 10)(scene(1))
    moved = np.roll(other, 3, axis=1)
    assert not is_mark([(one, moved), (one, other)])
    assert is_mark([(one, np.roll(one, 3, axis=1)), (one, painted(words(20, 80, 36), 255)(one))])
