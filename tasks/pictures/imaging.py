"""The one place that decodes pictures. Arrays are uint8, height x width (x 3 for RGB).

An orientation is an EXIF value, 1..8: what must be done to stored pixels so that they stand upright. These eight are
all turns and mirrors of a rectangle, so they also name any turn of ours, and ``compose`` joins two of them to one.
A file's own EXIF orientation is never applied here: callers pass the orientation that they want.

Source: CIPA DC-008 section 4.6.5 (orientation); libjpeg-turbo for scaled decoding in the DCT domain.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

__all__ = [
    "BadImage", "BadReason", "Format", "Pixels", "Verified", "compose", "decode_grey", "decode_measured",
    "decode_small", "decode_upright", "identify", "invert", "make_upright", "resize_area", "stored_size", "to_grey",
    "upright_size", "verify",
]  # fmt: skip

Pixels = npt.NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)
Format = Literal["JPEG", "PNG", "WEBP", "GIF"]
BadReason = Literal["empty", "html", "not_an_image", "truncated", "corrupt", "too_many_pixels"]

LONG_PX, SHORT_PX = 256, 64  # sides of what is measured: one scale for all, and panoramas keep some height
MAX_PIXELS = 200_000_000  # more in one picture are an attack: 600 MB once they are decoded
Image.MAX_IMAGE_PIXELS = None  # verify() asks for the pixel limit itself, before it decodes; Pillow would only warn
_WARNINGS = threading.Lock()  # the filters of ``warnings`` belong to the process, and photos are decoded in threads
# What Pillow raises on damaged files; AssertionError: a PNG with a palette but without its colours.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, AssertionError, struct.error, zlib.error)
_TRUNCATED = re.compile(r"Premature end of JPEG file|truncated|Truncated")

# (transpose, flip rows, flip columns) for each EXIF value: transposed first, then flipped.
_STEPS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
    5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
_VALUES = {steps: value for value, steps in _STEPS.items()}


class BadImage(Exception):
    """A file that is no usable picture; ``reason`` goes into the photo's row."""

    def __init__(self, reason: BadReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: BadReason = reason


class Verified(NamedTuple):
    """A file that decodes whole: its true format, and its size as stored."""

    format: Format
    width: int
    height: int


def identify(data: bytes) -> Format:
    """The true format of ``data`` by its first bytes; raises BadImage (empty, html, not_an_image)."""
    if not data:
        raise BadImage("empty")
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")):
        raise BadImage("html")
    raise BadImage("not_an_image", repr(data[:8]))


def verify(data: bytes, max_pixels: int = MAX_PIXELS) -> Verified:
    """What ``data`` is, after decoding it whole; raises BadImage with the reason why it is not a usable picture.

    The pixel limit is asked of the header. A JPEG is decoded at an eighth of its size: that reads every coefficient, so
    it notices each defect that a full decode does, at about half of its cost.
    """
    found = identify(data)
    width, height = stored_size(data, max_pixels)
    if found == "JPEG":
        _decode_jpeg(data, "GRAY", 1, 1)
    else:
        _decode_with_pillow(data)
    return Verified(found, width, height)


def decode_grey(data: bytes, min_px: int) -> Pixels:
    """The luma of a picture as stored, height x width. Raises BadImage.

    A JPEG comes scaled down by 1, 2, 4 or 8: as far as both of its sides stay at least ``min_px`` long.
    """
    if identify(data) == "JPEG":
        return _decode_jpeg(data, "GRAY", min_px, min_px)
    return to_grey(_decode_with_pillow(data))


def decode_upright(data: bytes, net_op: int, *, min_height: int = 0, min_width: int = 0) -> Pixels:
    """RGB pixels of ``data`` turned by the orientation ``net_op``; transparent parts are white. Raises BadImage.

    With a minimum, a JPEG may come smaller than stored (by 2, 4 or 8), but not below ``min_height`` and ``min_width``
    of the turned picture; 0 asks for full size. An orientation that the file itself notes is ignored.
    """
    if _STEPS[net_op][0]:
        min_height, min_width = min_width, min_height
    is_jpeg = identify(data) == "JPEG"
    pixels = _decode_jpeg(data, "RGB", min_height, min_width) if is_jpeg else _decode_with_pillow(data)
    return make_upright(pixels, net_op)


def decode_small(data: bytes, net_op: int, long_px: int, short_px: int) -> Pixels:
    """As ``decode_upright``, at one scale for all pictures: as small as both sides stay at least so long; none grows.

    A JPEG is scaled in the DCT domain, as far as that goes; the rest of the way, and all else, by averaging areas.
    """
    width, height = stored_size(data)
    scale = min(1.0, max(long_px / max(width, height), short_px / min(width, height)))
    width, height = (max(1, round(side * scale)) for side in (width, height))
    is_jpeg = identify(data) == "JPEG"
    pixels = _decode_jpeg(data, "RGB", height, width) if is_jpeg else _decode_with_pillow(data)
    if pixels.shape[:2] != (height, width):
        picture = Image.fromarray(pixels)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.HAMMING, reducing_gap=2.0))
    return make_upright(pixels, net_op)


def decode_measured(data: bytes, net_op: int) -> Pixels:
    """As ``decode_small``, at the scale at which photos are measured."""
    return decode_small(data, net_op, LONG_PX, SHORT_PX)


def make_upright(pixels: npt.NDArray[Value], orientation: int) -> npt.NDArray[Value]:
    """``pixels`` (height x width [x channels]) turned by an EXIF orientation; contiguous, a copy unless it is 1."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    turned = pixels.swapaxes(0, 1) if transpose else pixels
    turned = turned[::-1] if flip_rows else turned
    return np.ascontiguousarray(turned[:, ::-1] if flip_columns else turned)


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) of a picture as displayed."""
    return (height, width) if _STEPS[orientation][0] else (width, height)


def compose(first: int, then: int) -> int:
    """The orientation that does ``first`` and after it ``then``."""
    transpose, rows, columns = _STEPS[first]
    then_transpose, then_rows, then_columns = _STEPS[then]
    if then_transpose:  # a transposition carries flips of rows over into flips of columns
        rows, columns = columns, rows
    return _VALUES[(transpose != then_transpose, rows != then_rows, columns != then_columns)]


def invert(orientation: int) -> int:
    """The orientation that undoes ``orientation``."""
    return {6: 8, 8: 6}.get(orientation, orientation)  # all others are mirrors or half turns


def resize_area(pixels: Pixels, height: int, width: int) -> Pixels:
    """``pixels`` averaged over the area that each new pixel covers; interpolated where a side grows."""
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample))


def to_grey(pixels: Pixels) -> Pixels:
    """ITU-R 601 luma of RGB ``pixels``, height x width."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def stored_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) as the header of ``data`` says; nothing is decoded. Raises BadImage, also if too large."""
    width, height = _header_size(data)
    if width * height > max_pixels:
        raise BadImage("too_many_pixels", f"{width} x {height}, at most {max_pixels}")
    return width, height


def _header_size(data: bytes) -> tuple[int, int]:
    if identify(data) == "JPEG":
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:  # also an uncommon subsampling, which Pillow knows
            pass
        else:
            return width, height
    return _open(data).size


def _decode_jpeg(data: bytes, colorspace: Literal["RGB", "GRAY"], min_height: int, min_width: int) -> Pixels:
    """Pixels of a JPEG, height x width x 3 or height x width, scaled as ``decode_upright`` says."""
    height, width = max(min_height, 0), max(min_width, 0)
    try:
        stored_as = simplejpeg.decode_jpeg_header(data)[2]
        if stored_as not in {"YCbCr", "RGB", "Gray"}:
            raise ValueError(f"colour space {stored_as}")
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace, min_height=height, min_width=width)
    except ValueError as error:
        pixels = _decode_odd_jpeg(data, colorspace, str(error))
    return pixels.reshape(pixels.shape[:2]) if colorspace == "GRAY" else pixels


def _decode_odd_jpeg(data: bytes, colorspace: str, complaint: str) -> Pixels:
    """A JPEG that the strict decoder refused with ``complaint``; full size. Raises BadImage if its data are damaged."""
    if _TRUNCATED.search(complaint):
        raise BadImage("truncated", complaint)
    if "Corrupt JPEG data" in complaint:
        raise BadImage("corrupt", complaint)
    pixels = _decode_with_pillow(data)  # CMYK, YCCK, an uncommon subsampling, a harmless oddity of the header
    return to_grey(pixels) if colorspace == "GRAY" else pixels


def _open(data: bytes) -> Image.Image:
    """The picture in ``data``, its header read; raises BadImage."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "GIF"))
        except _PILLOW_ERRORS as error:
            raise BadImage(_pillow_reason(data, str(error)), str(error)) from error


def _decode_with_pillow(data: bytes) -> Pixels:
    """RGB pixels of ``data``, the first of several pictures; raises BadImage."""
    image = _open(data)
    try:
        image.load()
        pixels = _to_rgb(image)
    except _PILLOW_ERRORS as error:
        raise BadImage(_pillow_reason(data, str(error)), str(error)) from error
    if data[:4] == b"\x89PNG" and b"IEND" not in data:
        raise BadImage("truncated", "no IEND chunk")  # Pillow is content once it has all rows
    return pixels


def _pillow_reason(data: bytes, complaint: str) -> BadReason:
    """Whether Pillow's ``complaint`` is about missing bytes or about wrong ones."""
    is_short_webp = data[:4] == b"RIFF" and 8 + int.from_bytes(data[4:8], "little") > len(data)
    is_short_jpeg = data[:2] == b"\xff\xd8" and not data.rstrip(b"\x00").endswith(b"\xff\xd9")
    return "truncated" if is_short_webp or is_short_jpeg or _TRUNCATED.search(complaint) else "corrupt"


def _to_rgb(image: Image.Image) -> Pixels:
    """Pixels of any mode as RGB: 16 bits scaled to 8, palettes looked up, transparency over white."""
    if image.mode.startswith(("I", "F")):  # 16-bit grey, kept by Pillow in 16 or 32 bits
        grey = np.asarray(image, dtype=np.float64) / 257.0
        return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))
