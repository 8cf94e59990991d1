"""Ways in which the bytes of a photo can be wrong.

Whatever is wrong with a photo is wrong in every size of it, so no smaller size rescues a broken original.
"""

import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

from PIL import Image

BOMB_SIDE_PX = 25_000  # 625 megapixels, 4 times what Pillow agrees to open, in about 80 KB
HTML_PAGE = b"<!DOCTYPE html><html><head><title>Photo</title></head><body>Sorry, not here.</body></html>"


def truncated(data: bytes) -> bytes:
    """The first three fifths."""
    return data[: len(data) * 3 // 5]


def zero_bytes(data: bytes) -> bytes:
    """Nothing at all."""
    return b""


def html(data: bytes) -> bytes:
    """A page that says sorry, under status 200."""
    return HTML_PAGE


def png_named_jpg(data: bytes) -> bytes:
    """A sound PNG under the name and type of a JPEG."""
    stream = io.BytesIO()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def corrupt(data: bytes) -> bytes:
    """A JPEG whose Huffman tables are gone: it begins and ends as it should, and no decoder can read it."""
    start = data.find(b"\xff\xc4")
    if start < 0:
        raise ValueError("no Huffman table to remove: not a baseline JPEG")
    return data[: start + 4] + b"\xfe" * 400 + data[start + 404 :]


def bomb(data: bytes) -> bytes:
    """A small, valid PNG that fills the memory of whoever decodes it."""
    return _bomb()


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """One bit per pixel, all of them 0."""
    row = bytes(1 + (BOMB_SIDE_PX + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row * 500) for _ in range(BOMB_SIDE_PX // 500)) + packer.flush()
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, payload) for kind, payload in chunks)


def _chunk(kind: bytes, payload: bytes) -> bytes:
    """Length, kind, payload, checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": truncated,
    "zero_bytes": zero_bytes,
    "html": html,
    "png_named_jpg": png_named_jpg,
    "corrupt": corrupt,
    "bomb": bomb,
}
DEFECTS = (*BYTES, "missing", "noimageai")  # the image host answers these two with a status and a header


def spoil(defect: str | None, data: bytes) -> bytes:
    """``data`` as a photo with this defect shows it; the same bytes if the defect is none of the bytes."""
    return BYTES[defect](data) if defect in BYTES else data
