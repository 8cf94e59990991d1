"""What a picture file says about itself: EXIF, XMP and Photoshop blocks of JPEG, PNG and WEBP files.

Reads bytes without a library, because a broken block must cost a photo its facts and nothing else: every offset is
checked, no chain is followed further than one step, and nothing is ever raised.

Source: CIPA DC-008 (EXIF 2.32) section 4.6; TIFF 6.0 section 2; PNG third edition section 11; WebP container format.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

_MAKE, _MODEL, _SOFTWARE, _ORIENTATION = 0x010F, 0x0110, 0x0131, 0x0112
_PROCESSING_SOFTWARE, _EXIF_IFD, _TAKEN, _TAKEN_OFFSET = 0x000B, 0x8769, 0x9003, 0x9011
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1, 3, 4}
_EXIF_PREFIX = b"Exif\x00\x00"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
_PNG_XMP = b"XML:com.adobe.xmp\x00"
_TEXT_LIMIT = 200  # characters: longer ones are padding or abuse
_MOMENT = re.compile(r"(\d{4})[:/-](\d{2})[:/-](\d{2})[ T](\d{2}):(\d{2}):(\d{2})")

Chunk = tuple[bytes, int, int]


class ExifFacts(NamedTuple):
    """``orientation`` is 1 where absent or invalid; ``taken`` counts as UTC where the camera noted no offset."""

    orientation: int = 1
    make: str | None = None
    model: str | None = None
    software: str | None = None
    taken: datetime | None = None


class Embedded(NamedTuple):
    """Blocks of a file other than pixels. ``exif``: where its TIFF bytes lie, (start, end)."""

    exif: tuple[int, int] | None
    xmp: bytes
    photoshop: bytes
    is_saved_for_web: bool
    is_progressive: bool
    has_more_pictures: bool


def chunks(data: bytes) -> Iterator[Chunk]:
    """(kind, start, end) of each segment of a JPEG (kind = its marker byte), or each chunk of a PNG or WEBP."""
    if data[:2] == b"\xff\xd8":
        return _jpeg_segments(data)
    if data[:4] == b"\x89PNG":
        return _length_first(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _name_first(data)
    return iter(())


def _jpeg_segments(data: bytes) -> Iterator[Chunk]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in {0xDA, 0xD9} or end > len(data) or end < at + 4:
            return
        yield bytes([marker]), at + 4, end
        at = end


def _length_first(data: bytes) -> Iterator[Chunk]:
    at = 8
    while at + 12 <= len(data):
        start, end = at + 8, at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        yield data[at + 4 : at + 8], start, end
        at = end + 4


def _name_first(data: bytes) -> Iterator[Chunk]:
    at = 12
    while at + 8 <= len(data):
        start, end = at + 8, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            return
        yield data[at : at + 4], start, end
        at = end + (end & 1)


def embedded(data: bytes) -> Embedded:
    """The blocks of ``data`` that are not pixels; the first of each kind counts."""
    exif_at: tuple[int, int] | None = None
    xmp = photoshop = b""
    kinds: set[str] = set()
    for kind, start, end in chunks(data):
        head = data[start : min(end, start + 32)]
        if (kind == b"\xe1" and head.startswith(_EXIF_PREFIX)) or kind in {b"eXIf", b"EXIF"}:
            exif_at = exif_at or (start + 6 * head.startswith(_EXIF_PREFIX), end)
        elif kind == b"\xe1" and head.startswith(_XMP_PREFIX):
            xmp = xmp or data[start + len(_XMP_PREFIX) : end]
        elif kind == b"XMP " or (kind == b"iTXt" and head.startswith(_PNG_XMP)):
            xmp = xmp or data[start:end]
        elif kind == b"\xed" and head.startswith(b"Photoshop"):
            photoshop += data[start:end]
        elif kind == b"\xec" and head.startswith(b"Ducky"):
            kinds.add("web")
        elif kind in {b"\xc2", b"\xca"}:
            kinds.add("progressive")
        elif (kind == b"\xe2" and head.startswith(b"MPF")) or kind in {b"acTL", b"ANIM"}:
            kinds.add("more")
    return Embedded(exif_at, xmp, photoshop, "web" in kinds, "progressive" in kinds, "more" in kinds)


@dataclass(frozen=True)
class _Tiff:
    """Reader of TIFF bytes; whatever points outside of them does not exist."""

    block: bytes
    order: Literal["little", "big"]

    def integer(self, at: int, size: int) -> int:
        return int.from_bytes(self.block[at : at + size], self.order)

    def entries(self, at: int) -> dict[int, tuple[int, int, int]]:
        """(type, value's place, its bytes) by tag, of the directory at ``at``; the first of each tag counts."""
        found: dict[int, tuple[int, int, int]] = {}
        if not 8 <= at <= len(self.block) - 2:
            return found
        count = min(self.integer(at, 2), (len(self.block) - at - 2) // 12)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            kind = self.integer(entry + 2, 2)
            size = _SIZES.get(kind, 0) * self.integer(entry + 4, 4)
            place = entry + 8 if size <= 4 else self.integer(entry + 8, 4)
            if size > 0 and place + size <= len(self.block):
                found.setdefault(self.integer(entry, 2), (kind, place, size))
        return found

    def number(self, entry: tuple[int, int, int] | None) -> int | None:
        """The first value of an integer entry."""
        if entry is None or entry[0] not in _INTEGERS:
            return None
        return self.integer(entry[1], _SIZES[entry[0]])

    def text(self, entry: tuple[int, int, int] | None) -> str | None:
        """A text entry up to its first NUL, without control characters; None if nothing is left."""
        if entry is None or entry[0] not in {1, 2, 7}:
            return None
        raw = self.block[entry[1] : entry[1] + entry[2]].split(b"\x00")[0]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        return "".join(letter for letter in text if letter.isprintable()).strip()[:_TEXT_LIMIT] or None


def _tiff(data: bytes, where: tuple[int, int] | None) -> _Tiff | None:
    if where is None:
        return None
    block = data[where[0] : where[1]]
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\x00": "little", b"MM\x00*": "big"}
    order = orders.get(block[:4])
    return None if order is None else _Tiff(block, order)


def exif(data: bytes) -> ExifFacts:
    """The EXIF facts of a JPEG, PNG or WEBP file; what is absent or broken is None (orientation: 1). Never raises."""
    return facts(data, embedded(data))


def facts(data: bytes, blocks: Embedded) -> ExifFacts:
    """As ``exif``, where ``blocks`` are at hand already."""
    tiff = _tiff(data, blocks.exif)
    if tiff is None:
        return ExifFacts()
    main = tiff.entries(tiff.integer(4, 4))
    details = tiff.entries(tiff.number(main.get(_EXIF_IFD)) or 0)
    orientation = tiff.number(main.get(_ORIENTATION)) or 1
    software = tiff.text(main.get(_SOFTWARE)) or tiff.text(main.get(_PROCESSING_SOFTWARE))
    return ExifFacts(
        orientation=orientation if orientation <= 8 else 1,
        make=tiff.text(main.get(_MAKE)),
        model=tiff.text(main.get(_MODEL)),
        software=software,
        taken=_moment(tiff.text(details.get(_TAKEN)), tiff.text(details.get(_TAKEN_OFFSET))),
    )


def _moment(text: str | None, offset: str | None) -> datetime | None:
    """EXIF's local ``text`` as UTC, given the camera's ``offset`` such as ``+02:00``."""
    match = _MOMENT.match(text or "")
    if match is None:
        return None
    year, month, day, *clock = match.groups()
    offset = offset if re.fullmatch(r"[+-](0\d|1[0-4]):[0-5]\d", offset or "") else "+00:00"
    try:
        return datetime.fromisoformat(f"{year}-{month}-{day}T{':'.join(clock)}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February; the year 0
        return None


def upright_exif(data: bytes) -> bytes | None:
    """The TIFF bytes of ``data`` with its orientation set to 1; None without EXIF. Nothing else in them moves."""
    where = embedded(data).exif
    tiff = _tiff(data, where)
    if tiff is None:
        return None
    entry = tiff.entries(tiff.integer(4, 4)).get(_ORIENTATION)
    if entry is None or entry[0] not in _INTEGERS:
        return tiff.block
    size = _SIZES[entry[0]]
    return tiff.block[: entry[1]] + (1).to_bytes(size, tiff.order) + tiff.block[entry[1] + size :]


def reset_orientation(data: bytes) -> bytes:
    """The file ``data`` with its EXIF orientation set to 1 in place; only for JPEG, whose segments have no checksum."""
    where = embedded(data).exif
    block = upright_exif(data)
    if where is None or block is None:
        return data
    return data[: where[0]] + block + data[where[1] :]
