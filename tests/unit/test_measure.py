"""Measures of one photo."""

import io
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from storage.records import MEASURE
from tasks import imaging, measure


def scene(height: int, width: int, seed: int = 0) -> imaging.Pixels:
    """Clouds of random colours: structure at every scale, no symmetry."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((width, height), 3)
        for cells in (3, 6, 12, 24)
    ]
    return np.mean([np.asarray(layer, dtype=float) for layer in layers], axis=0).astype(np.uint8)


def jpeg(pixels: imaging.Pixels, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **{"quality": 92} | options)
    return out.getvalue()


def marked(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def bits_apart(first: bytes, second: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_the_hash_is_that_of_imagehash(seed: int) -> None:
    """Bit for bit imagehash.phash(hash_size=16) of the same grey picture."""
    grey = imaging.to_grey(scene(200 + 31 * seed, 300, seed))
    theirs = np.packbits(imagehash.phash(Image.fromarray(grey), hash_size=16).hash).tobytes()
    assert measure.hash_bits(measure.low_frequencies(grey)) == theirs


def test_the_hash_is_that_of_imagehash_on_photographs(shared: Path) -> None:
    """Also for real photographs: our scaled decoding is part of the picture, the hash itself is the same."""
    for path in sorted((shared / "photos").glob("*/*.jpg"))[::6]:
        rgb = imaging.decode_upright(path.read_bytes(), 1, min_height=256, min_width=256)
        theirs = np.packbits(imagehash.phash(Image.fromarray(imaging.to_grey(rgb)), hash_size=16).hash).tobytes()
        assert measure.picture_facts(rgb)["phash"] == theirs


@pytest.mark.parametrize("orientation", range(1, 9))
def test_hashes_of_turned_pictures_come_from_one_dct(orientation: int) -> None:
    """The hash of each orientation is that of the turned picture, but for 2 bits: the resize rounds after each axis."""
    for seed in range(3):
        rgb = scene(210, 310, seed)
        hashes = measure.picture_facts(rgb)["phash_orientations"]
        turned = measure.picture_facts(imaging.make_upright(rgb, orientation))["phash"]
        assert bits_apart(hashes[32 * orientation - 32 : 32 * orientation], turned) <= 2


def test_the_eight_hashes_differ() -> None:
    """A picture without symmetry has eight different hashes, about half of the bits apart."""
    facts = measure.picture_facts(scene(200, 300))
    hashes = [facts["phash_orientations"][start : start + 32] for start in range(0, 256, 32)]
    assert hashes[0] == facts["phash"]
    assert all(bits_apart(a, b) > 60 for at, a in enumerate(hashes) for b in hashes[:at])


def test_a_flat_picture_hashes_the_same_on_every_machine() -> None:
    """Coefficients that are zero are exactly zero, so no bit depends on the order of a sum."""
    for value in (0, 77, 255):
        bits = measure.hash_bits(measure.low_frequencies(np.full((300, 400), value, np.uint8)))
        assert sum(byte.bit_count() for byte in bits) == (value > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_everything_is_measured_upright(orientation: int) -> None:
    """A photo and the same photo stored in any orientation have the same measures, but for the stored size."""
    upright = scene(480, 640)
    stored = imaging.make_upright(upright, imaging.invert(orientation))
    plain = measure.measure_photo(jpeg(upright, subsampling=0))
    turned = measure.measure_photo(jpeg(stored, subsampling=0, exif=marked(orientation)))
    assert (turned["width"], turned["height"]) == stored.shape[1::-1]
    assert turned["exif_orientation"] == orientation
    assert (turned["long_px"], turned["short_px"], turned["aspect_milli"]) == (640, 480, 1333)
    assert bits_apart(plain["phash"], turned["phash"]) <= 4
    both = [np.frombuffer(row["thumbnail"], np.uint8).astype(int) for row in (plain, turned)]
    assert np.abs(both[0] - both[1]).max() <= 3
    assert turned["brightness"] == pytest.approx(plain["brightness"], abs=0.5)
    assert turned["sharpness"] == pytest.approx(plain["sharpness"], rel=0.05)


def test_all_columns_are_measured() -> None:
    """A sound photo has every column of the stage but the reason; a damaged one has the reason alone."""
    data = jpeg(scene(300, 400))
    assert {name for name, _ in MEASURE} - set(measure.measure_photo(data)) == {"measure_reason"}
    assert measure.measure_photo(data[:-400]) == {"measure_reason": "truncated"}
    assert measure.measure_photo(b"<html>") == {"measure_reason": "html"}


def test_sharpness_tells_blurred_from_sharp() -> None:
    """Blur lowers it, a flat picture has none, and the size of the photo hardly counts."""
    rgb = np.random.default_rng(0).integers(0, 256, (512, 768), dtype=np.uint8)
    sharp = imaging.resize_area(rgb, 64, 96).repeat(8, 0).repeat(8, 1)
    blurred = np.asarray(Image.fromarray(sharp).resize((24, 16), 4).resize((768, 512), 3))
    assert measure.sharpness(sharp) > 5 * measure.sharpness(blurred) > 0
    doubled = sharp.repeat(2, 0).repeat(2, 1)
    assert measure.sharpness(doubled) == pytest.approx(measure.sharpness(sharp), rel=0.05)
    assert measure.sharpness(np.full((100, 100), 9, np.uint8)) == 0
    assert measure.sharpness(np.full((2, 100), 9, np.uint8)) == 0


def test_grey_pictures_are_told_from_coloured_ones() -> None:
    """A grey picture stays grey as a JPEG of three channels; one with a patch of colour is not grey."""
    grey = np.repeat(imaging.to_grey(scene(300, 400))[:, :, None], 3, axis=2)
    assert measure.measure_photo(jpeg(grey))["is_grey"]
    grey[:60, :60] = (200, 30, 30)
    assert not measure.measure_photo(jpeg(grey))["is_grey"]


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2)])
def test_odd_sizes_are_measured(size: tuple[int, int]) -> None:
    """Single pixels and lines are pictures, too."""
    facts = measure.measure_photo(jpeg(np.full((*size, 3), 100, np.uint8)))
    assert (facts["long_px"], facts["short_px"]) == (max(size), min(size))
    assert len(facts["thumbnail"]) == 1024
