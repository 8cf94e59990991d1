"""Hashes, sketches and the parts of a picture that they are taken of."""

import hashlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tasks.pictures import hashing, imaging


def clouds(seed: int, height: int = 240, width: int = 360) -> imaging.Pixels:
    """A grey picture with structure at every scale, another for each seed."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8)).resize((width, height), 3)
        for cells in (3, 6, 12, 24)
    ]
    return np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8)


def differing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.bitwise_count(first ^ second)


def test_a_picture_without_frame_has_whole_core_crops_and_quarters() -> None:
    """The views that may be met turned come first, then the inner crops, the quarters last."""
    views = hashing.views(clouds(0))
    boxes = views["box"] / 65535
    assert boxes[0].tolist() == [0, 1, 0, 1]
    assert boxes[1] == pytest.approx([0.1, 0.9, 0.1, 0.9], abs=1e-4)
    assert hashing.quarters_of(views).tolist() == [0] * (2 + hashing.INNER_CROPS) + [1, 2, 3, 4]


def test_a_flat_quarter_is_no_view() -> None:
    """A clear sky in one corner would match every other."""
    picture = clouds(0)
    picture[:120, :180] = 200
    assert hashing.quarters_of(hashing.views(picture)).tolist()[-3:] == [2, 3, 4]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_quarters_of_a_turned_picture_tell_how_it_was_turned(orientation: int) -> None:
    """Turned to the upper left, a quarter is that of the picture as it was, or transposed; both name the turn back."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    both = [hashing.views(each) for each in (clouds(1), imaging.make_upright(clouds(1), orientation))]
    which = [hashing.quarters_of(views) for views in both]
    corner = [hashing.turned_sketches(views["sketch"]) for views in both]
    found = []
    for first in np.flatnonzero(which[0]):
        for second in np.flatnonzero(which[1]):
            for transposing in (1, 5):
                here = corner[0][which[0][first] - 1, first]
                there = hashing.turned_sketches(corner[1][which[1][second] - 1, [second]])[transposing - 1, 0]
                if differing(here, there) <= 2:
                    at = [which[0][[first]], which[1][[second]]]
                    found += hashing.between(*at, np.array([transposing == 5])).tolist()
    assert found == [back] * 4


def test_lines_go_and_what_is_wider_stays() -> None:
    """Strokes of up to four pixels, light and dark, across each other; bars of five pixels are part of the picture."""
    ground = np.full((128, 128), 100, np.uint8)
    ground[60:65] = 220
    written = ground.copy()
    written[:, 20:24], written[30:33], written[:, 90:92] = 255, 255, 0
    assert np.array_equal(hashing.without_lines(written), ground)


@pytest.mark.parametrize("size", [(128, 128), (60, 97), (5, 5), (1, 7), (3, 40)])
def test_lines_go_by_the_definition(size: tuple[int, int]) -> None:
    """Least, most, most, least of 5 x 5 pixels around each, the edge going on beyond."""
    picture = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = picture
    for rank in (np.min, np.max, np.max, np.min):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(expected, 2, "edge"), (5, 5))
        expected = rank(windows, axis=(2, 3))
    assert np.array_equal(hashing.without_lines(picture), expected)


@pytest.mark.parametrize(
    ("kind", "views", "digest"),
    [
        ("plain", 12, "9d3ad25912757f27"), ("small", 12, "72146f4c6cdef808"), ("framed", 14, "1c06c27106c31fe3"),
        ("noisy frame", 13, "1f09d4dfb349096e"), ("flat quarter", 11, "e1e5042a587f77c4"),
        ("flat", 0, "153ae1b83bc75d1e"),
    ],
)  # fmt: skip
def test_the_columns_stay_what_they_are(kind: str, views: int, digest: str) -> None:
    """Hashes that were kept years ago are compared with today's: not one bit of them may change."""
    picture = clouds(5)
    noisy = np.pad(picture, 20, constant_values=90)
    noisy[:20] += np.random.default_rng(1).integers(0, 9, noisy[:20].shape, dtype=np.uint8)
    with_sky = picture.copy()
    with_sky[:120, :180] = 200
    pictures = {
        "plain": picture, "small": clouds(6, 90, 61), "noisy frame": noisy, "flat quarter": with_sky,
        "framed": np.pad(np.pad(picture, 9), ((14, 7), (0, 11)), constant_values=255), "flat": np.full_like(picture, 9),
    }  # fmt: skip
    facts = hashing.hash_facts(pictures[kind])
    assert len(facts["phash_probes"]) == views * hashing.VIEW.itemsize
    assert facts["phash"] == facts["phash_orientations"][:32]
    assert hashlib.sha256(facts["phash_orientations"] + facts["phash_probes"]).hexdigest()[:16] == digest


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_sketches_are_those_of_the_turned_picture(orientation: int) -> None:
    """But for a bit or two that lie at zero; the sketches of the other seven orientations are far away."""
    turned = hashing.views(imaging.make_upright(clouds(1), orientation))["sketch"][:2]
    told = hashing.turned_sketches(hashing.views(clouds(1))["sketch"][:2])
    assert differing(told[orientation - 1], turned).max() <= 2
    assert np.delete(differing(told, turned), orientation - 1, axis=0).min() > 7


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_boxes_hold_the_same_part(orientation: int) -> None:
    """What a box cuts out of the picture, turned, is what the turned box cuts out of the turned picture."""
    picture, box = clouds(2, 100, 200), np.array([[0.1, 0.6, 0.2, 0.9]])

    def part(pixels: imaging.Pixels, left: float, right: float, top: float, bottom: float) -> imaging.Pixels:
        height, width = pixels.shape
        return pixels[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]

    turned = hashing.turned_boxes(box, np.array([orientation]))[0]
    expected = imaging.make_upright(part(picture, *box[0]), orientation)
    assert np.array_equal(part(imaging.make_upright(picture, orientation), *turned), expected)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.03])
def test_an_inner_crop_is_the_sketch_of_a_crop(share: float) -> None:
    """The whole of a cropped picture is near one of the inner crops of the picture, and not near its whole at 10 %."""
    picture = clouds(3, 400, 600)
    cropped = picture[round(share * 200) : round(400 - share * 200), round(share * 300) : round(600 - share * 300)]
    views, whole = hashing.views(picture)["sketch"], hashing.views(cropped)["sketch"][0]
    assert differing(views, whole).min() <= 7
    assert share < 0.1 or differing(views[0], whole) > 7


@pytest.mark.parametrize("colours", [("white",), ("black",), ("white", "black")])
def test_a_frame_is_taken_off(colours: tuple[str, ...]) -> None:
    """One or two frames around each other: the last anchor is the picture within, and its sketch is the picture's."""
    framed = Image.fromarray(clouds(4))
    for colour in colours:
        framed = ImageOps.expand(framed, 12, colour)
    views = hashing.views(np.asarray(framed))
    views = views[hashing.quarters_of(views) == 0]
    inner = views[len(views) - hashing.INNER_CROPS - 1]
    side = 12 * len(colours)
    expected = [side / framed.width, 1 - side / framed.width, side / framed.height, 1 - side / framed.height]
    assert len(views) == 2 + hashing.INNER_CROPS + len(colours)
    assert inner["box"] / 65535 == pytest.approx(expected, abs=1e-4)
    assert differing(inner["sketch"], hashing.views(clouds(4))["sketch"][0]) <= 4


@pytest.mark.parametrize("kind", ["black", "white", "grey", "gradient", "stripes"])
def test_a_flat_picture_has_no_views(kind: str) -> None:
    """Neither one colour, nor one gradient, nor a bar code says which picture it is."""
    across = np.linspace(0, 1, 360)
    rows = {
        "black": 0,
        "white": 255,
        "grey": 128,
        "gradient": 80 + 90 * across,
        "stripes": 255 * (across * 12 % 1 > 0.5),
    }
    picture = np.broadcast_to(np.asarray(rows[kind], np.uint8), (240, 360)).copy()
    assert len(hashing.views(picture)) == 0
    assert hashing.hash_facts(picture)["phash_probes"] == b""
