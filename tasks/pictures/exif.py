"""What the EXIF block of a JPEG, PNG or WEBP file says: camera, programs, times, sizes, orientation.

Reads bytes without a library, because a broken block must cost a photo its facts and nothing else: every offset is
checked, no chain is followed further than one step, and nothing is ever raised.

Source: CIPA DC-008 (EXIF 2.32) section 4.6; TIFF 6.0 section 2.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, NamedTuple

from tasks.pictures.containers import Blocks, blocks_of

_MAKE, _MODEL, _SOFTWARE, _ORIENTATION, _MODIFIED = 0x010F, 0x0110, 0x0131, 0x0112, 0x0132
_PROCESSING_SOFTWARE, _EXIF_IFD, _TAKEN, _TAKEN_OFFSET = 0x000B, 0x8769, 0x9003, 0x9011
_WIDTH, _HEIGHT, _MAKER_NOTE, _WINDOWS_PADDING = 0xA002, 0xA003, 0x927C, 0xEA1C
_STORED_WIDTH, _STORED_HEIGHT, _THUMBNAIL, _THUMBNAIL_BYTES = 0x0100, 0x0101, 0x0201, 0x0202
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGERS = {1, 3, 4}
_TEXT_LIMIT = 200  # characters: longer ones are padding or abuse
_MOMENT = re.compile(r"(\d{4})[:/-](\d{2})[:/-](\d{2})[ T](\d{2}):(\d{2}):(\d{2})")

Entry = tuple[int, int, int]
Turn = Callable[[bytes], bytes | None]


class ExifFacts(NamedTuple):
    """``orientation`` is 1 where absent or invalid; ``taken`` counts as UTC where the camera noted no offset.

    ``modified_after_s``: from the shutter to the last writing of the file, by the camera's clock. ``noted_size``:
    (width, height) of the pixels as EXIF notes it. ``thumbnail``: the embedded JPEG. ``is_windows_tagged``: Windows
    left room for tags of its own.
    """

    orientation: int = 1
    make: str | None = None
    model: str | None = None
    software: str | None = None
    taken: datetime | None = None
    processing_software: str | None = None
    modified_after_s: int | None = None
    noted_size: tuple[int, int] | None = None
    thumbnail: bytes = b""
    has_maker_note: bool = False
    is_windows_tagged: bool = False


@dataclass(frozen=True)
class _Tiff:
    """Reader of TIFF bytes; whatever points outside of them does not exist."""

    block: bytes
    order: Literal["little", "big"]

    def integer(self, at: int, size: int) -> int:
        return int.from_bytes(self.block[at : at + size], self.order)

    def entries(self, at: int) -> dict[int, Entry]:
        """(type, value's place, its bytes) by tag, of the directory at ``at``; the first of each tag counts."""
        found: dict[int, Entry] = {}
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

    @cached_property
    def main(self) -> dict[int, Entry]:
        """The first directory."""
        return self.entries(self.integer(4, 4))

    @property
    def link(self) -> int:
        """Where the offset of the second directory, that of the thumbnail, lies."""
        first = self.integer(4, 4)
        return first + 2 + 12 * self.integer(first, 2)

    @cached_property
    def details(self) -> dict[int, Entry]:
        """The EXIF directory."""
        return self.entries(self.number(self.main.get(_EXIF_IFD)) or 0)

    def thumbnail(self) -> tuple[int, int]:
        """(start, end) of the embedded JPEG; (0, 0) if there is none."""
        entries = self.entries(self.integer(self.link, 4))
        start, size = (self.number(entries.get(tag)) or 0 for tag in (_THUMBNAIL, _THUMBNAIL_BYTES))
        return (start, start + size) if start and size and start + size <= len(self.block) else (0, 0)

    def number(self, entry: Entry | None) -> int | None:
        """The first value of an integer entry."""
        if entry is None or entry[0] not in _INTEGERS:
            return None
        return self.integer(entry[1], _SIZES[entry[0]])

    def text(self, entry: Entry | None) -> str | None:
        """A text entry up to its first NUL, without control characters; None if nothing is left."""
        if entry is None or entry[0] not in {1, 2, 7}:
            return None
        raw = self.block[entry[1] : entry[1] + entry[2]].split(b"\x00")[0]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        return "".join(letter for letter in text if letter.isprintable()).strip()[:_TEXT_LIMIT] or None

    def with_number(self, entry: Entry | None, value: int) -> "_Tiff":
        """The same bytes but for an integer entry, if it is there and can hold ``value``."""
        if entry is None or entry[0] not in _INTEGERS or value >= 256 ** _SIZES[entry[0]]:
            return self
        return self.with_bytes(entry[1], value.to_bytes(_SIZES[entry[0]], self.order))

    def with_bytes(self, at: int, new: bytes) -> "_Tiff":
        """The same bytes but for ``new`` ones at a place."""
        return _Tiff(self.block[:at] + new + self.block[at + len(new) :], self.order)


def _tiff(blocks: Blocks) -> _Tiff | None:
    """The EXIF block of a file."""
    start, end = blocks.first("exif") or (0, 0)
    block = blocks.data[start:end]
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\x00": "little", b"MM\x00*": "big"}
    order = orders.get(block[:4])
    return None if order is None else _Tiff(block, order)


def exif(data: bytes) -> ExifFacts:
    """The EXIF facts of a JPEG, PNG or WEBP file; what is absent or broken is None (orientation: 1). Never raises."""
    return facts(blocks_of(data))


def facts(blocks: Blocks) -> ExifFacts:
    """As ``exif``, where the blocks are at hand already."""
    tiff = _tiff(blocks)
    if tiff is None:
        return ExifFacts()
    main, details = tiff.main, tiff.details
    orientation = tiff.number(main.get(_ORIENTATION)) or 1
    taken, offset = tiff.text(details.get(_TAKEN)), tiff.text(details.get(_TAKEN_OFFSET))
    thumbnail_start, thumbnail_end = tiff.thumbnail()
    return ExifFacts(
        orientation=orientation if orientation <= 8 else 1,
        make=tiff.text(main.get(_MAKE)),
        model=tiff.text(main.get(_MODEL)),
        software=tiff.text(main.get(_SOFTWARE)),
        taken=_moment(taken, offset),
        processing_software=tiff.text(main.get(_PROCESSING_SOFTWARE)),
        modified_after_s=_seconds_between(taken, tiff.text(main.get(_MODIFIED))),
        noted_size=_noted_size(tiff, details),
        thumbnail=tiff.block[thumbnail_start:thumbnail_end],
        has_maker_note=_MAKER_NOTE in details,
        is_windows_tagged=_WINDOWS_PADDING in main or _WINDOWS_PADDING in details,
    )


def _noted_size(tiff: _Tiff, details: dict[int, Entry]) -> tuple[int, int] | None:
    width, height = (tiff.number(details.get(tag)) for tag in (_WIDTH, _HEIGHT))
    return (width, height) if width and height else None


def _seconds_between(taken: str | None, modified: str | None) -> int | None:
    """By one clock, so that its offset does not matter."""
    first, last = _moment(taken, None), _moment(modified, None)
    return None if first is None or last is None else int((last - first).total_seconds())


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


def turned_exif(blocks: Blocks, is_transposed: bool, turn: Turn) -> bytes | None:
    """The TIFF bytes of a file whose pixels were turned upright; None without EXIF. As long as before, nothing moves.

    The orientation is 1, noted sizes are those of the turned picture, and the thumbnail is turned by ``turn``, too; one
    that does not turn, or not into its old room, is unlinked: better none than one that lies on its side.
    """
    tiff = _tiff(blocks)
    if tiff is None:
        return None
    tiff = tiff.with_number(tiff.main.get(_ORIENTATION), 1)
    if is_transposed:
        tiff = _with_sides_swapped(tiff, tiff.details, _WIDTH, _HEIGHT)
        tiff = _with_sides_swapped(tiff, tiff.main, _STORED_WIDTH, _STORED_HEIGHT)
    return _with_thumbnail_turned(tiff, turn).block


def _with_sides_swapped(tiff: _Tiff, entries: dict[int, Entry], first: int, second: int) -> _Tiff:
    """Each of two integer entries has the other's value, if both are there."""
    values = [tiff.number(entries.get(tag)) for tag in (second, first)]
    if None in values:
        return tiff
    for tag, value in zip((first, second), values, strict=True):
        tiff = tiff.with_number(entries.get(tag), value or 0)
    return tiff


def _with_thumbnail_turned(tiff: _Tiff, turn: Turn) -> _Tiff:
    start, end = tiff.thumbnail()
    if not end:
        return tiff
    turned = turn(tiff.block[start:end])
    if turned is None or len(turned) > end - start:
        return tiff.with_bytes(tiff.link, bytes(4))
    entries = tiff.entries(tiff.integer(tiff.link, 4))
    tiff = tiff.with_bytes(start, turned.ljust(end - start, b"\x00"))
    tiff = tiff.with_number(entries.get(_THUMBNAIL_BYTES), len(turned))
    return tiff.with_number(entries.get(_ORIENTATION), 1)
