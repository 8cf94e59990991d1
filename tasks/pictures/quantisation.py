"""The quantisation tables of a JPEG, and who makes such ones: libjpeg by quality, Photoshop by preset, or a camera.

Source: ITU-T T.81 B.2.4.1 (DQT), annex K.1 (the tables that libjpeg scales); jpeg_quality_scaling of the Independent
JPEG Group's jcparam.c; Photoshop's presets as Pillow lists them (PIL.JpegPresets).
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from PIL.JpegPresets import presets

Tables = tuple[bytes, ...]

_ZIGZAG = sorted(range(64), key=lambda at: (sum(divmod(at, 8)), at if sum(divmod(at, 8)) % 2 else -at))
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)  # fmt: skip


def read_tables(segments: bytes) -> Tables:
    """The tables in DQT ``segments`` by their number: 64 values in zigzag order, 128 bytes if of 16 bits."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(segments):
        size = 128 if segments[at] >> 4 else 64
        found[segments[at] & 15] = segments[at + 1 : at + 1 + size]
        at += 1 + size
    return tuple(found[number] for number in sorted(found))


def digest(tables: Tables) -> str | None:
    """What names a set of tables; None for none."""
    return hashlib.sha256(b"\0".join(tables)).hexdigest()[:16] if tables else None


def ijg_quality(tables: Tables) -> int | None:
    """The quality, 1..100, at which libjpeg writes exactly these ``tables``; None if it never does."""
    quality, chroma = _scaled().get(tables[0], (None, b"")) if tables else (None, b"")
    return quality if set(tables[1:]) <= {chroma} else None


def photoshop_quality(tables: Tables) -> str | None:
    """Photoshop's name of the preset with exactly these ``tables``."""
    name, chroma = _presets().get(tables[0], (None, b"")) if tables else (None, b"")
    return name if set(tables[1:]) <= {chroma} else None


@cache
def _scaled() -> dict[bytes, tuple[int, bytes]]:
    """(quality, chroma's table) of libjpeg by luma's table."""
    return {_at(quality, _LUMA): (quality, _at(quality, _CHROMA)) for quality in range(1, 101)}


def _at(quality: int, base: tuple[int, ...]) -> bytes:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return _zigzag(min(255, max(1, (value * percent + 50) // 100)) for value in base)


def _zigzag(rows: Iterator[int]) -> bytes:
    values = list(rows)
    return bytes(values[at] for at in _ZIGZAG)


@cache
def _presets() -> dict[bytes, tuple[str, bytes]]:
    """(name, chroma's table) of Photoshop's presets by luma's table. Those for the web are known by their APP12."""
    named: dict[str, Any] = {name: preset["quantization"] for name, preset in presets.items()}
    return {
        _zigzag(iter(luma)): (name, _zigzag(iter(chroma)))
        for name, (luma, chroma) in named.items()
        if not name.startswith("web_")
    }
