"""Decoding, checking and turning pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.pictures import imaging
from tasks.pictures.imaging import BadImage


def scene(height: int, width: int, channels: int = 3) -> imaging.Pixels:
    """A smooth picture without any symmetry."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(3 * x + channel) + np.cos(5 * y * (1 + channel)) + x * y for channel in range(channels)]
    stack = np.stack(waves, axis=-1)
    return ((stack - stack.min()) / np.ptp(stack) * 255).astype(np.uint8)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def picture(image_format: str, mode: str = "RGB", size: tuple[int, int] = (96, 64), **options: Any) -> bytes:
    image = Image.fromarray(scene(size[1], size[0]))
    return encoded(image.quantize(256) if mode == "P" else image.convert(mode), image_format, **options)


FILES = {
    "JPEG": picture("JPEG", quality=90),
    "progressive JPEG": picture("JPEG", progressive=True),
    "grey JPEG": picture("JPEG", "L"),
    "CMYK JPEG": picture("JPEG", "CMYK"),
    "PNG": picture("PNG"),
    "palette PNG": picture("PNG", "P"),
    "WEBP": picture("WEBP"),
    "lossless WEBP": picture("WEBP", lossless=True),
    "GIF": picture("GIF"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_sound_file_is_verified_with_its_format_and_size(name: str) -> None:
    """verify() tells true format and stored size of every kind of file that we take."""
    assert imaging.verify(FILES[name]) == (name.split()[-1], 96, 64)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_never_verified(name: str, share: float) -> None:
    """However much is missing at its end, a file that was cut off is refused."""
    data = FILES[name]
    with pytest.raises(BadImage) as caught:
        imaging.verify(data[: int(len(data) * share)])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "PNG"])
def test_a_file_that_lost_its_very_end_is_truncated(name: str) -> None:
    """Even the last bytes count: a JPEG without its end marker, a PNG without its last chunk."""
    with pytest.raises(BadImage) as caught:
        imaging.verify(FILES[name][:-12])
    assert caught.value.reason == "truncated"


def test_a_jpeg_with_a_false_end_is_corrupt() -> None:
    """An end marker stuck behind half of the data deceives Pillow, not us."""
    half = FILES["JPEG"][: len(FILES["JPEG"]) // 2] + b"\xff\xd9"
    Image.open(io.BytesIO(half)).load()
    with pytest.raises(BadImage) as caught:
        imaging.verify(half)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><html>gone</html>", "html"),
        (b"\xef\xbb\xbf<HTML><body>", "html"),
        (b'{"stat": "fail"}', "not_an_image"),
        (b"%PDF-1.7", "not_an_image"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "not_an_image"),
    ],
)
def test_what_is_no_picture_says_what_it_is(data: bytes, reason: str) -> None:
    """Empty answers, pages and other files each have their reason."""
    with pytest.raises(BadImage) as caught:
        imaging.verify(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_pixel_limit_is_asked_before_decoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decompression bomb is refused by its header alone."""
    monkeypatch.setattr(imaging, "_decode_jpeg", None)
    monkeypatch.setattr(imaging, "_decode_with_pillow", None)
    with pytest.raises(BadImage) as caught:
        imaging.verify(FILES[name], max_pixels=96 * 64 - 1)
    assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize("name", FILES)
def test_every_kind_decodes_to_about_the_same_picture(name: str) -> None:
    """Whatever the encoding, the RGB pixels (of grey ones: the luma) are those that were encoded."""
    wanted = scene(64, 96)
    got = imaging.decode_upright(FILES[name], 1)
    assert got.shape == (64, 96, 3)
    assert got.dtype == np.uint8
    if name == "grey JPEG":
        wanted = np.repeat(imaging.to_grey(wanted)[:, :, None], 3, axis=2)
    assert np.abs(got.astype(int) - wanted).mean() < (12 if name == "GIF" else 5)


def test_transparent_parts_are_white() -> None:
    """Alpha is composited on white, also that of a palette, and half of it halfway."""
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:2, :, 3] = 255
    rgba[2, :, 3] = 128
    got = imaging.decode_upright(encoded(Image.fromarray(rgba), "PNG"), 1)
    assert got[0, 0].tolist() == [0, 0, 0]
    assert got[2, 0].tolist() == [127, 127, 127]
    assert got[3, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert imaging.decode_upright(encoded(palette, "PNG", transparency=0), 1)[0, 0].tolist() == [255, 255, 255]


def test_a_palette_without_its_colours_is_corrupt() -> None:
    """What Pillow calls its own mistake is the file's."""
    data = FILES["palette PNG"]
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    with pytest.raises(BadImage) as caught:
        imaging.verify(data[:start] + data[end:])
    assert caught.value.reason == "corrupt"


def test_sixteen_bits_become_eight() -> None:
    """A 16-bit grey PNG is scaled, not clipped."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    got = imaging.decode_upright(encoded(Image.fromarray(ramp), "PNG"), 1)
    assert np.array_equal(got[:, :, 0].ravel(), np.arange(256))


def test_scaled_decoding_keeps_the_minimum_of_the_turned_picture() -> None:
    """A JPEG comes as small as the minimum allows, and the minimum is that of the upright picture."""
    data = picture("JPEG", size=(960, 640))
    assert imaging.decode_upright(data, 1, min_height=80, min_width=120).shape == (80, 120, 3)
    assert imaging.decode_upright(data, 6, min_height=120, min_width=80).shape == (120, 80, 3)
    assert imaging.decode_upright(data, 6, min_height=121, min_width=80).shape == (240, 160, 3)
    assert imaging.decode_upright(data, 1, min_height=5000, min_width=5000).shape == (640, 960, 3)
    assert imaging.decode_grey(data, 100).shape == (160, 240)
    assert imaging.decode_grey(FILES["CMYK JPEG"], 8).shape == (64, 96)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize(
    ("size", "net_op", "shape"),
    [
        ((960, 640), 1, (171, 256)), ((960, 640), 6, (256, 171)), ((1000, 999), 1, (256, 256)),
        ((257, 200), 1, (199, 256)), ((100, 60), 1, (60, 100)), ((1600, 80), 1, (64, 1280)), ((1, 700), 1, (700, 1)),
    ],
)  # fmt: skip
def test_small_decoding_brings_every_format_to_one_scale(
    image_format: str, size: tuple[int, int], net_op: int, shape: tuple[int, int]
) -> None:
    """The long side becomes 256 px, but the short one stays 64 px long; nothing grows; it is the same picture."""
    got = imaging.decode_small(picture(image_format, size=size), net_op, 256, 64)
    assert got.shape == (*shape, 3)
    wanted = imaging.resize_area(imaging.make_upright(scene(size[1], size[0]), net_op), *shape)
    assert np.abs(got.astype(int) - wanted).mean() < 12


def test_the_orientation_in_the_file_is_ignored() -> None:
    """Only the orientation that the caller passes counts."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for image_format in ("JPEG", "PNG", "WEBP"):
        plain, marked = picture(image_format), picture(image_format, exif=exif)
        assert np.array_equal(imaging.decode_upright(plain, 1), imaging.decode_upright(marked, 1))


def test_area_resizing_averages() -> None:
    """Shrinking to one pixel gives the mean; a colour picture keeps its channels."""
    assert imaging.resize_area(np.array([[0, 100], [100, 200]], np.uint8), 1, 1).tolist() == [[100]]
    assert imaging.resize_area(scene(40, 60), 20, 20).shape == (20, 20, 3)
    assert imaging.resize_area(scene(4, 6), 20, 20).shape == (20, 20, 3)


def test_real_photographs_verify(shared: Path) -> None:
    """A sample of real photographs of every format passes the strict check."""
    files = sorted((shared / "photos").glob("*/*"))
    for file in sorted(files, key=lambda path: path.stat().st_size)[:40]:
        assert imaging.verify(file.read_bytes()).width > 0
