"""Measures of one photo."""

import io
from pathlib import Path
from typing import Any

import duckdb
import imagehash
import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from PIL import Image

from storage.records import MEASURE
from tasks import measure
from tasks.filter import FilterRules, count_kept, judge
from tasks.pictures import imaging


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


def test_the_hash_is_that_of_imagehash_on_photographs(shared: Path) -> None:
    """Also for real photographs: our scaled decoding is part of the picture, the hash itself is the same."""
    for path in sorted((shared / "photos").glob("*/*.jpg"))[::6]:
        rgb = imaging.decode_measured(path.read_bytes(), 1)
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


@pytest.mark.parametrize("size", [(3_000_000, 1), (1, 3_000_000)])
def test_a_line_of_pixels_is_one_row(size: tuple[int, int]) -> None:
    """A file of a few bytes may be millions of pixels long: every measure fits its column, and no aspect suits it."""
    out = io.BytesIO()
    Image.new("1", size, 1).save(out, "PNG")
    row = measure.measure_photo(out.getvalue())
    table = pa.Table.from_pylist([row], schema=pa.schema(MEASURE))
    widest = FilterRules(min_long_px=1, min_short_px=1, aspect=1000, aspect_tolerance=1000)
    assert (row["long_px"], judge(row, widest)) == (3_000_000, "wrong_aspect")
    with duckdb.connect() as database:
        database.register("measured", table)
        assert count_kept(database, widest, has_decisions=False) == 0
        assert count_kept(database, FilterRules(min_short_px=1, aspect=None), has_decisions=False) == 1


def test_sharpness_tells_blurred_from_sharp() -> None:
    """Blur lowers it by far more than the size of the photo does; a flat picture has none."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    sharp = noise.repeat(8, 0).repeat(8, 1)
    blurred = np.asarray(Image.fromarray(sharp).resize((24, 16), 4).resize((768, 512), 3))
    found = [measure.measure_photo(jpeg(rgb))["sharpness"] for rgb in (sharp, sharp.repeat(2, 0).repeat(2, 1), blurred)]
    assert found[0] > 5 * found[2] > 0
    assert found[1] == pytest.approx(found[0], rel=0.3)
    assert measure.sharpness(np.full((100, 100), 9, np.uint8)) == 0
    assert measure.sharpness(np.full((2, 100), 9, np.uint8)) == 0


def test_entropy_is_the_information_of_the_histogram() -> None:
    """A flat picture has none, two equal halves have one bit, all levels alike have eight; brightness is the mean."""
    halves = np.zeros((40, 60), np.uint8)
    halves[20:] = 200
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for grey, entropy in ((np.full((9, 9), 7, np.uint8), 0.0), (halves, 1.0), (levels, 8.0)):
        assert measure.light(grey) == {"brightness": pytest.approx(grey.mean()), "entropy": pytest.approx(entropy)}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_one_scale_for_all_photos(image_format: str) -> None:
    """The same picture at other sizes, from any format, has nearly the same measures."""
    cells = np.random.default_rng(0).integers(0, 256, (14, 21, 3), dtype=np.uint8)
    rows = []
    for size in ((1024, 683), (700, 467), (512, 342)):
        out = io.BytesIO()
        Image.fromarray(cells).resize(size, Image.Resampling.BILINEAR).save(out, image_format, quality=95)
        rows.append(measure.measure_photo(out.getvalue()))
    for row in rows[1:]:
        assert bits_apart(row["phash"], rows[0]["phash"]) <= 16
        assert row["brightness"] == pytest.approx(rows[0]["brightness"], abs=0.5)
        assert row["entropy"] == pytest.approx(rows[0]["entropy"], abs=0.1)
        assert row["sharpness"] == pytest.approx(rows[0]["sharpness"], rel=0.3)


def test_a_photo_is_decoded_once_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One decode per photo, at a scale near what is measured; what the header refuses is not decoded at all."""
    decoded: list[tuple[int, ...]] = []
    decode = simplejpeg.decode_jpeg

    def counted(*arguments: Any, **options: Any) -> imaging.Pixels:
        pixels: imaging.Pixels = decode(*arguments, **options)
        decoded.append(pixels.shape)
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    data = jpeg(np.zeros((1365, 2048, 3), np.uint8))
    assert "measure_reason" not in measure.measure_photo(data)
    assert decoded == [(171, 256, 3)]
    frame = data.index(b"\xff\xc0")
    bomb = data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :]
    assert measure.measure_photo(bomb) == {"measure_reason": "too_many_pixels"}
    assert len(decoded) == 1


def test_tables_are_named_and_their_quality_is_known() -> None:
    """Equal tables have equal digests, libjpeg's their quality; other formats have none of these facts."""
    rgb = scene(64, 96)
    rows = [measure.measure_photo(jpeg(rgb, quality=quality)) for quality in (75, 75, 92, "maximum")]
    assert rows[0]["quantisation"] == rows[1]["quantisation"] != rows[2]["quantisation"]
    assert [row["ijg_quality"] for row in rows] == [75, 75, 92, None]
    assert [measure.measure_photo(jpeg(rgb, progressive=p))["is_progressive"] for p in (False, True)] == [False, True]
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG")
    row = measure.measure_photo(out.getvalue())
    assert (row["quantisation"], row["ijg_quality"], row["is_progressive"]) == (None, None, None)


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
