"""Turn a picture file without loss: equal coefficients or equal pixels, nothing trimmed, everything else in it kept.

A JPEG turns in the coefficient domain where that cuts no block; a PNG of up to 8 bits a channel and a lossless WEBP are
decoded, turned, encoded again and compared. Whatever notes an orientation (EXIF, XMP) then says upright, noted sizes
are swapped with the sides, and the embedded thumbnail is turned as well. All else is left to a reader (``net_op``).

Source: ITU-T T.81 A.2.4 (blocks); libjpeg-turbo, ``jpegtran`` (turns of coefficients); PNG third edition section 5.6
(order of chunks).
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import turbojpeg
from PIL import Image

from tasks.pictures.containers import Blocks, blocks_of, chunks
from tasks.pictures.exif import turned_exif

_TRANSFORMS = {
    2: turbojpeg.OP.HFLIP, 3: turbojpeg.OP.ROT180, 4: turbojpeg.OP.VFLIP, 5: turbojpeg.OP.TRANSPOSE,
    6: turbojpeg.OP.ROT90, 7: turbojpeg.OP.TRANSVERSE, 8: turbojpeg.OP.ROT270,
}  # fmt: skip
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SWAPS_SIDES = {5, 6, 7, 8}
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
_PNG_PIXELS = {b"PLTE", b"tRNS", b"IDAT"}  # chunks that depend on how pixels are encoded
_PNG_COLOURS = {b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sRGB", b"mDCV", b"cLLI"}  # these go before the palette
_PNG_OTHERS = {b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"caBX"}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:>|\s*=\s*[\"'])\s*)[1-8]")


def rotate_exactly(data: bytes, image_format: str, op: int) -> bytes | None:
    """``data`` turned by the orientation ``op``; None where no exact turn exists. 1 only sets notes on orientation."""
    blocks = blocks_of(data)
    if op == 1:
        return noted_upright(blocks, op)
    if "more_pictures" in blocks:  # an animation; or pictures behind the first that would be lost
        return None
    if image_format == "JPEG":
        return _rotate_coefficients(blocks, op)
    if image_format == "PNG" and data[24] <= 8:  # 16 bits per channel do not survive Pillow
        return _rotate_png(noted_upright(blocks, op), op)
    if image_format == "WEBP" and is_lossless_webp(data):
        return _rotate_webp(blocks_of(noted_upright(blocks, op)), op)
    return None


def is_lossless_webp(data: bytes) -> bool:
    """Whether the pixels of a WEBP file lie in a VP8L chunk."""
    return any(kind == b"VP8L" for kind, _, _ in chunks(data))


def noted_upright(blocks: Blocks, op: int) -> bytes:
    """The file with EXIF and XMP that fit its pixels once these are turned by ``op``; as long as before."""
    turn = partial(_transformed, op=op, copynone=True, optimize=True)
    exif = turned_exif(blocks, is_transposed=op in _SWAPS_SIDES, turn=turn if op != 1 else bytes)
    data = blocks.data
    for place, block in (
        (blocks.first("exif"), exif),
        (blocks.first("xmp"), _XMP_ORIENTATION.sub(rb"\g<1>1", blocks.xmp)),
    ):
        if place is not None and block is not None:
            data = data[: place[0]] + block + data[place[1] :]
    is_png = data[:4] == b"\x89PNG"
    return _png(data, [(kind, data[start:end]) for kind, start, end in chunks(data)]) if is_png else data


def _transformed(data: bytes, op: int, **options: bool) -> bytes | None:
    """A JPEG turned block by block; None if that would leave a partial block inside the picture."""
    try:
        turned: bytes = turbojpeg.transform(data, _TRANSFORMS[op], perfect=True, **options)
    except RuntimeError:  # not perfect, or of a kind that only its owner's decoder can read
        return None
    return turned


def _rotate_coefficients(blocks: Blocks, op: int) -> bytes | None:
    """A JPEG with its coefficients moved and all of its segments kept.

    What follows the end of the picture, such as the film of a moving photo, follows it still.
    """
    turned = _transformed(blocks.data, op, progressive=blocks.is_progressive)
    return None if turned is None else noted_upright(blocks_of(turned), op) + _behind_the_end(blocks.data)


def _behind_the_end(jpeg: bytes) -> bytes:
    """What comes after the first end marker behind the headers; scans have none inside."""
    end = jpeg.find(b"\xff\xd9", max((end for _, _, end in chunks(jpeg)), default=2))
    return jpeg[end + 2 :] if end >= 0 else b""


def _rotate_png(data: bytes, op: int) -> bytes | None:
    """Pixels as Pillow encodes them, among the other chunks of ``data``; None if a pixel would not come back equal."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in _PNG_MODES:
            return None
        pixels = _saved(image.transpose(_TRANSPOSITIONS[op]), "PNG", {})
    encoded = [(kind, pixels[start:end]) for kind, start, end in chunks(pixels)]
    others = [(kind, data[start:end]) for kind, start, end in chunks(data)]
    wanted = [
        encoded[0],
        *[chunk for chunk in others if chunk[0] in _PNG_COLOURS],
        *[chunk for chunk in encoded if chunk[0] in _PNG_PIXELS - {b"IDAT"}],
        *_swapped_density(others, op),
        *[chunk for chunk in encoded if chunk[0] == b"IDAT"],
        (b"IEND", b""),
    ]
    result = _png(data, wanted)
    return result if _are_equal(data, result, op) else None


def _swapped_density(chunks_of_png: list[tuple[bytes, bytes]], op: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that say nothing of colours; pixels per metre go with the sides."""
    for kind, body in chunks_of_png:
        if kind == b"pHYs" and op in _SWAPS_SIDES:
            yield kind, body[4:8] + body[:4] + body[8:]
        elif kind in _PNG_OTHERS:
            yield kind, body


def _png(like: bytes, wanted: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with the signature of another."""
    return like[:8] + b"".join(png_chunk(*chunk) for chunk in wanted)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _rotate_webp(blocks: Blocks, op: int) -> bytes | None:
    """A lossless WEBP turned, with its EXIF, XMP and profile; None if a pixel would not come back equal."""
    start, end = blocks.first("exif") or (0, 0)
    with Image.open(io.BytesIO(blocks.data)) as image:
        kept = {"exif": blocks.data[start:end], "xmp": blocks.xmp, "icc_profile": image.info.get("icc_profile")}
        options: dict[str, Any] = {"lossless": True, "exact": True, "method": 4}
        options |= {name: block for name, block in kept.items() if block}
        result = _saved(image.transpose(_TRANSPOSITIONS[op]), "WEBP", options)
    return result if _are_equal(blocks.data, result, op) else None


def _saved(image: Image.Image, image_format: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def _are_equal(data: bytes, turned: bytes, op: int) -> bool:
    """Whether all pixels, and how transparent they are, came back."""
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(turned)) as after:
        wanted = before.convert("RGBA").transpose(_TRANSPOSITIONS[op])
        return wanted.size == after.size and np.array_equal(np.asarray(wanted), np.asarray(after.convert("RGBA")))
