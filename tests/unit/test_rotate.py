"""Turning photos without loss."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import simplejpeg
import turbojpeg
from PIL import Image

from storage import blobs
from storage.layout import Layout
from tasks import rotate
from tasks.pictures import imaging, lossless
from tasks.pictures.containers import blocks_of, chunks
from tasks.pictures.exif import exif

TURNS = range(2, 9)


def scene(height: int, width: int) -> imaging.Pixels:
    rng = np.random.default_rng(height * width)
    cells = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: Any, image_format: str, mode: str = "RGB", orientation: int | None = None, **options: Any) -> bytes:
    block = Image.Exif()
    block[0x010F] = "Canon"
    if orientation is not None:
        block[0x0112] = orientation
    image = Image.fromarray(pixels)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, image_format, exif=block, icc_profile=b"profile" * 20, **options)
    return out.getvalue()


LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {"image_format": "PNG"},
    "grey PNG": {"image_format": "PNG", "mode": "L"},
    "palette PNG": {"image_format": "PNG", "mode": "P"},
    "alpha PNG": {"image_format": "PNG", "mode": "RGBA"},
    "WEBP": {"image_format": "WEBP", "lossless": True},
}


@pytest.mark.parametrize("op", TURNS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_turn_pixel_by_pixel(name: str, op: int) -> None:
    """A turned PNG or lossless WEBP of any size has the turned pixels, EXIF that says upright, and its profile."""
    data = encoded(scene(37, 53), orientation=op, **LOSSLESS[name])
    turned = rotate.rotate_exactly(data, LOSSLESS[name]["image_format"], op)
    assert turned is not None
    assert np.array_equal(imaging.decode_upright(turned, 1), imaging.decode_upright(data, op))
    assert exif(turned) == exif(data)._replace(orientation=1)
    with Image.open(io.BytesIO(turned)) as image:
        assert image.info["icc_profile"] == b"profile" * 20


@pytest.mark.parametrize("op", TURNS)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_aligned_jpegs_turn_in_the_coefficient_domain(op: int, subsampling: int) -> None:
    """The turned JPEG shows the turned picture, and EXIF says upright; turned back it has the same coefficients."""
    data = encoded(scene(64, 96), "JPEG", orientation=op, quality=85, subsampling=subsampling)
    turned = rotate.rotate_exactly(data, "JPEG", op)
    assert turned is not None
    difference = imaging.decode_upright(turned, 1).astype(int) - imaging.decode_upright(data, op)
    assert np.abs(difference).mean() < 1  # chroma is interpolated in another direction
    assert exif(turned) == exif(data)._replace(orientation=1)
    back = rotate.rotate_exactly(turned, "JPEG", imaging.invert(op))
    assert back is not None
    assert scan(back) == scan(data)
    assert np.array_equal(imaging.decode_upright(back, 1), imaging.decode_upright(data, 1))


def scan(data: bytes) -> bytes:
    """The entropy-coded data with the tables that optimising would choose: equal for equal coefficients."""
    plain = turbojpeg.transform(data, turbojpeg.OP.NONE, copynone=True, optimize=True)
    return plain[plain.index(b"\xff\xc0") :]


def test_luma_of_a_turned_jpeg_is_exact() -> None:
    """Without chroma in play, each pixel of the turned JPEG is that of the picture, but for rounding by one."""
    data = encoded(scene(64, 96), "JPEG", mode="L")
    for op in TURNS:
        turned = rotate.rotate_exactly(data, "JPEG", op)
        assert turned is not None
        got, wanted = imaging.decode_upright(turned, 1), imaging.decode_upright(data, op)
        assert np.abs(got.astype(int) - wanted).max() <= 1


def test_four_quarter_turns_give_the_same_coefficients() -> None:
    """Four exact quarter turns are identity."""
    data = turned = encoded(scene(64, 96), "JPEG")
    for _ in range(4):
        turned = rotate.rotate_exactly(turned, "JPEG", 8) or b""
    assert scan(turned) == scan(data)


@pytest.mark.parametrize("op", TURNS)
def test_unaligned_jpegs_are_turned_only_where_no_block_is_cut(op: int) -> None:
    """A partial block may stay at the right and bottom (a transposition); any other turn would move it: not exact."""
    data = encoded(scene(61, 93), "JPEG")
    turned = rotate.rotate_exactly(data, "JPEG", op)
    assert (turned is not None) == (op == 5)
    if turned is not None:
        assert simplejpeg.decode_jpeg_header(turned)[:2] == (93, 61)


@pytest.mark.parametrize("size", [(64, 93), (61, 96)])
def test_a_mirror_needs_only_its_own_side_aligned(size: tuple[int, int]) -> None:
    """Which sides must be whole blocks depends on the turn; what is turned is right in every pixel."""
    data = encoded(scene(*size), "JPEG", mode="L")
    for op in TURNS:
        turned = rotate.rotate_exactly(data, "JPEG", op)
        if turned is not None:
            difference = imaging.decode_upright(turned, 1).astype(int) - imaging.decode_upright(data, op)
            assert np.abs(difference).max() <= 1


def test_a_progressive_jpeg_stays_progressive() -> None:
    """The turned file has the same kind of scan."""
    turned = rotate.rotate_exactly(encoded(scene(64, 96), "JPEG", progressive=True), "JPEG", 6)
    assert turned is not None
    assert blocks_of(turned).is_progressive


def animation(image_format: str) -> bytes:
    out = io.BytesIO()
    first, second = (Image.fromarray(scene(16, 32 + shift)).resize((32, 16)) for shift in (0, 8))
    first.save(out, image_format, save_all=True, append_images=[second], lossless=True)
    return out.getvalue()


def png(bits: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of 2 x 2 pixels by hand; ``rows`` with their filter bytes."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 2, 2, bits, colour_type, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(lossless.png_chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.mark.parametrize(
    ("data", "image_format"),
    [
        (encoded(scene(32, 48), "WEBP"), "WEBP"),
        (encoded(scene(32, 48), "GIF"), "GIF"),
        (animation("WEBP"), "WEBP"),
        (animation("PNG"), "PNG"),
        (encoded(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100, "PNG", mode="I;16"), "PNG"),
        (png(16, 2, bytes(2 * (1 + 12))), "PNG"),
    ],
    ids=["lossy WEBP", "GIF", "animated WEBP", "animated PNG", "16-bit grey PNG", "16-bit PNG"],
)
def test_what_cannot_turn_exactly_stays(data: bytes, image_format: str) -> None:
    """Lossy WEBP, GIF, animations and deep pictures are left to net_op."""
    assert rotate.rotate_exactly(data, image_format, 6) is None


def test_pictures_behind_the_first_are_not_thrown_away() -> None:
    """A JPEG that holds several pictures (MPO) stays as it is."""
    out = io.BytesIO()
    frames = [Image.fromarray(scene(32, 48)), Image.fromarray(scene(32, 48))]
    frames[0].save(out, "MPO", save_all=True, append_images=frames[1:])
    assert rotate.rotate_exactly(out.getvalue(), "JPEG", 6) is None


def with_segments(data: bytes, *parts: tuple[int, bytes]) -> bytes:
    """A JPEG with further segments in front of all others."""
    body = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(part) + 2) + part for marker, part in parts)
    return data[:2] + body + data[2:]


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/><tiff:Orientation>6</tiff:Orientation>'


def test_everything_else_in_a_jpeg_is_kept() -> None:
    """Profile, IPTC, comment and what lies behind the picture stay byte by byte; XMP says upright, too."""
    parts = [(0xE1, XMP), (0xED, b"Photoshop 3.0\0" + b"8BIM" * 9), (0xFE, b"a comment"), (0xEF, b"who knows")]
    data = with_segments(encoded(scene(64, 96), "JPEG", orientation=6), *parts) + b"a film \xff\xd9 with an end"
    turned = rotate.rotate_exactly(data, "JPEG", 6)
    assert turned is not None
    kept = {data[start:end] for kind, start, end in chunks(data) if kind[0] >= 0xE0 and b"Exif" not in data[start:end]}
    assert {part.replace(b"6", b"1") if part == XMP else part for part in kept} <= {
        turned[start:end] for _, start, end in chunks(turned)
    }
    assert turned.endswith(b"\xff\xd9a film \xff\xd9 with an end")


def test_everything_else_in_a_png_is_kept() -> None:
    """Colours, texts and times stay; pixels per metre change sides; XMP and EXIF say upright, with right checksums."""
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP[29:]
    density = struct.pack(">IIB", 100, 200, 1)
    parts = [(b"gAMA", bytes(4)), (b"pHYs", density), (b"tEXt", b"Author\0me"), (b"iTXt", xmp), (b"tIME", bytes(7))]
    plain = encoded(scene(20, 30), "PNG", orientation=6)
    data = plain[:33] + b"".join(lossless.png_chunk(*part) for part in parts) + plain[33:]
    turned = rotate.rotate_exactly(data, "PNG", 6)
    assert turned is not None
    after = {kind: turned[start:end] for kind, start, end in chunks(turned)}
    assert after == after | dict(parts) | {
        b"pHYs": density[4:8] + density[:4] + b"\1",
        b"iTXt": xmp.replace(b"6", b"1"),
    }
    assert exif(turned).orientation == 1
    assert all(lossless.png_chunk(kind, body) in turned for kind, body in after.items())


@pytest.mark.parametrize("kind", ["bits", "grey and alpha", "one clear colour", "one clear grey", "clear in a palette"])
def test_transparency_and_small_depths_come_back(kind: str) -> None:
    """Pixels of one bit, alpha beside grey, and single transparent colours survive a turn."""
    picture, options = Image.fromarray(scene(13, 22)), {}
    if kind == "bits":
        picture = picture.convert("1")
    elif kind == "grey and alpha":
        picture = Image.merge("LA", [picture.convert("L"), picture.getchannel("R")])
    elif kind == "one clear colour":
        options["transparency"] = picture.getpixel((3, 3))
    elif kind == "one clear grey":
        picture = picture.convert("L")
        options["transparency"] = picture.getpixel((3, 3))
    else:
        picture = picture.quantize(16)
        options["transparency"] = bytes([0, 128] * 8)
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    for op in TURNS:
        turned = rotate.rotate_exactly(out.getvalue(), "PNG", op)
        assert turned is not None
        with Image.open(out) as before, Image.open(io.BytesIO(turned)) as after:
            assert after.mode == before.mode
            wanted = imaging.make_upright(np.asarray(before.convert("RGBA")), op)
            assert np.array_equal(np.asarray(after.convert("RGBA")), wanted)


def test_an_embedded_thumbnail_turns_with_the_picture() -> None:
    """It shows the turned picture, upright, in the same room."""
    small = Image.fromarray(scene(64, 96)).resize((48, 32))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=60)
    thumbnail = out.getvalue()
    data = with_thumbnail(encoded(scene(64, 96), "JPEG", quality=90), thumbnail)
    assert exif(data).thumbnail == thumbnail
    turned = rotate.rotate_exactly(data, "JPEG", 6)
    assert turned is not None
    after = exif(turned)
    assert after.orientation == 1
    difference = imaging.decode_upright(after.thumbnail, 1).astype(int) - imaging.decode_upright(thumbnail, 6)
    assert np.abs(difference).mean() < 2


def with_thumbnail(data: bytes, thumbnail: bytes) -> bytes:
    """A JPEG whose only EXIF is orientation 6 and a thumbnail."""
    start, end = next((start, end) for kind, start, end in chunks(data) if kind == b"\xe1")
    main = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    return with_segments(data[: start - 4] + data[end:], (0xE1, b"Exif\0\0II*\0\x08\0\0\0" + main + second + thumbnail))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_already_lies_right_only_loses_its_wrong_note(image_format: str) -> None:
    """Where nothing is to be turned, pixels stay as they are encoded, and EXIF no longer says otherwise."""
    data = encoded(scene(37, 53), image_format, orientation=6)
    noted = rotate.rotate_exactly(data, image_format, 1)
    assert noted is not None
    assert len(noted) == len(data)
    assert exif(noted) == exif(data)._replace(orientation=1)
    assert np.array_equal(imaging.decode_upright(noted, 1), imaging.decode_upright(data, 1))


@pytest.mark.parametrize(("orientation", "mode", "wanted"), [(6, "landscape", "rewritten"), (6, "none", "kept")])
def test_no_upright_blob_says_that_it_is_not(where: Layout, orientation: int, mode: str, wanted: str) -> None:
    """A portrait whose stored pixels lie already gets a blob whose EXIF agrees; with ``none`` nothing is touched."""
    data = encoded(scene(61, 93), "JPEG", orientation=orientation)
    sha256 = blobs.put(where, data, "JPEG")
    ids = (photo for photo in range(100) if rotate.plan(93, 61, orientation, "landscape", f"folder/{photo}").op == 1)
    row = {"source": "folder", "photo_id": str(next(ids)), "sha256": sha256, "format": "JPEG", "measure_reason": None}
    row |= {"width": 93, "height": 61, "exif_orientation": orientation}
    found = rotate.rotate_row(where, row, mode)  # type: ignore[arg-type]
    assert found["net_op"] == 1
    assert (found["blob"] == sha256) == (wanted == "kept")
    assert exif(blobs.get(where, found["blob"], "JPEG")).orientation == (orientation if wanted == "kept" else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_plan_stands_photos_upright_and_portraits_on_their_side(orientation: int) -> None:
    """After the plan a landscape stands upright, and a portrait lies as its upright picture turned by numpy.rot90."""
    for shape in ((4, 6), (6, 4), (5, 5)):
        upright = np.arange(shape[0] * shape[1]).reshape(shape)
        stored = imaging.make_upright(upright, imaging.invert(orientation))
        height, width = stored.shape
        op, turns = rotate.plan(width, height, orientation, "landscape", "flickr/1")
        assert np.array_equal(imaging.make_upright(stored, op), np.rot90(upright, turns))
        assert (turns in {1, 3}) == (shape == (6, 4))
        assert rotate.plan(width, height, orientation, "upright", "flickr/1") == (orientation, 0)
        assert rotate.plan(width, height, orientation, "none", "flickr/1") == (1, 0)


def test_portraits_turn_either_way() -> None:
    """About half of the portraits turn to each side, each one always to the same."""
    turns = [rotate.plan(2, 3, 1, "landscape", f"flickr/{photo}").landscape_turns for photo in range(400)]
    assert 150 < turns.count(1) < 250
    assert turns.count(1) + turns.count(3) == 400
    assert turns == [rotate.plan(2, 3, 1, "landscape", f"flickr/{photo}").landscape_turns for photo in range(400)]
