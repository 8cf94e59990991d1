"""Where the blocks of a picture file lie that are not pixels: EXIF, XMP, Photoshop, tables, comments, provenance.

One pass over the headers of a JPEG, PNG or WEBP file. A broken block ends the walk and nothing else; nothing is raised.

Source: ITU-T T.81 annex B (JPEG markers); PNG third edition section 11; WebP container format; C2PA specification 2.2,
section A.3 (where a manifest lies); CIPA DC-007 (MPF: further pictures behind the first).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Place = tuple[int, int]
Block = Literal[
    "jfif", "exif", "xmp", "photoshop", "saved_for_web", "provenance", "comment", "tables", "frame", "more_pictures"
]
_PNG_XMP = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00"  # not compressed, no language
_EXIF_PREFIX, _XMP_PREFIX = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
# How a block begins, by the marker of a JPEG or the name of a chunk; what is matched is not part of the block.
_BLOCKS: dict[bytes, tuple[tuple[bytes, Block], ...]] = {
    b"\xe0": ((b"JFIF\x00", "jfif"),),
    b"\xe1": ((_EXIF_PREFIX, "exif"), (_XMP_PREFIX, "xmp")),
    b"\xe2": ((b"MPF\x00", "more_pictures"),),
    b"\xeb": ((b"JP", "provenance"),),
    b"\xec": ((b"Ducky", "saved_for_web"),),
    b"\xed": ((b"Photoshop 3.0\x00", "photoshop"),),
    b"\xfe": ((b"", "comment"),),
    b"\xdb": ((b"", "tables"),),
    b"eXIf": ((_EXIF_PREFIX, "exif"), (b"", "exif")),
    b"EXIF": ((_EXIF_PREFIX, "exif"), (b"", "exif")),
    b"iTXt": ((_PNG_XMP, "xmp"),),
    b"XMP ": ((b"", "xmp"),),
    b"caBX": ((b"", "provenance"),),
    b"C2PA": ((b"", "provenance"),),
    b"acTL": ((b"", "more_pictures"),),
    b"ANIM": ((b"", "more_pictures"),),
}
_FRAMES = {bytes([marker]) for marker in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
_PROGRESSIVE = {b"\xc2", b"\xc6", b"\xca", b"\xce"}


@dataclass(frozen=True)
class Blocks:
    """The blocks of the file ``data``: (start, end) of each, by kind, in the order of the file."""

    data: bytes = b""
    places: dict[Block, list[Place]] = field(default_factory=dict)
    is_progressive: bool = False

    def __contains__(self, block: Block) -> bool:
        return block in self.places

    def first(self, block: Block) -> Place | None:
        """Where the first block of a kind lies."""
        return self.places.get(block, [None])[0]

    def joined(self, block: Block) -> bytes:
        """All blocks of a kind, one after the other."""
        return b"".join(self.data[start:end] for start, end in self.places.get(block, ()))

    @property
    def xmp(self) -> bytes:
        """The first packet of XMP."""
        start, end = self.first("xmp") or (0, 0)
        return self.data[start:end]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) as the header of a JPEG says."""
        start, end = self.first("frame") or (0, 0)
        height, width = (int.from_bytes(self.data[at : at + 2], "big") for at in (start + 1, start + 3))
        return (width, height) if width and height and end - start >= 6 else None


def blocks_of(data: bytes) -> Blocks:
    """The blocks of ``data``; none if it is no JPEG, PNG or WEBP."""
    places: dict[Block, list[Place]] = {}
    is_progressive = False
    for kind, start, end in chunks(data):
        if kind in _FRAMES:
            places.setdefault("frame", []).append((start, end))
            is_progressive = kind in _PROGRESSIVE
        for prefix, block in _BLOCKS.get(kind, ()):
            if data.startswith(prefix, start, end):
                places.setdefault(block, []).append((start + len(prefix), end))
                break
    return Blocks(data, places, is_progressive)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each segment of a JPEG (kind = its marker byte), or each chunk of a PNG or WEBP."""
    if data[:2] == b"\xff\xd8":
        return _jpeg_segments(data)
    if data[:4] == b"\x89PNG":
        return _length_first(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _name_first(data)
    return iter(())


def _jpeg_segments(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in {0xDA, 0xD9} or end > len(data) or end < at + 4:
            return
        yield data[at + 1 : at + 2], at + 4, end
        at = end


def _length_first(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    while at + 12 <= len(data):
        start, end = at + 8, at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], start, end
        at = end + 4


def _name_first(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    while at + 8 <= len(data):
        start, end = at + 8, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            return
        yield data[at : at + 4], start, end
        at = end + (end & 1)
