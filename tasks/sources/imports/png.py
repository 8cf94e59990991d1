"""Pixels as PNG bytes that are the same on every machine and with every version of every library.

The bytes name the photo, so that no compressor may have a say: the pixels are stored as they are.

Source: RFC 2083 (PNG), RFC 1950 and 1951 (zlib and its stored blocks).
"""

import struct
import zlib

from tasks.pictures.imaging import Pixels

_BLOCK_BYTES = 65535
_GREY, _RGB = 0, 2


def encode(pixels: Pixels) -> bytes:
    """``pixels`` (height x width, or height x width x 3) as a PNG, without loss."""
    height, width = pixels.shape[:2]
    colour = _GREY if pixels.ndim == 2 else _RGB
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: the row as it is, no filter
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored(data: bytes) -> bytes:
    """``data`` as a zlib stream of stored blocks."""
    blocks = bytearray(b"\x78\x01")
    for start in range(0, len(data), _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        is_last = start + _BLOCK_BYTES >= len(data)
        blocks += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    return bytes(blocks + struct.pack(">I", zlib.adler32(data)))
