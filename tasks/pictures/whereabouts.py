"""Files without what says where a photo was taken, their pixels untouched bit for bit.

Left out are: the GPS directory of EXIF, and with it the maker's notes; XMP packets that name a place (their GPS,
Iptc4xmpCore and photoshop properties) and extended XMP; Photoshop blocks with a place among their IPTC records, or with
EXIF or XMP of their own; content credentials (C2PA) that name one; text profiles of PNG, and texts of PNG that are XMP
or EXIF by name or by content and name one, compressed or not; and what follows the picture in a JPEG, more pictures or
videos, for these have metadata of their own. Not looked at are free texts, such as captions and comments, what maker's
notes say in a file without GPS, and what the picture itself shows.

Source: CIPA DC-008 sections 4.6.3 and 4.6.6 (GPS); Adobe XMP part 3 (where packets lie); IPTC-IIM 4.2 (records 2:xx);
ITU-T T.81 B.1.1 (markers); CIPA DC-007 (several pictures in one JPEG); PNG third edition section 11.3.3 (texts).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tasks.pictures.containers import blocks_of, chunks

GPS, MAKER_NOTE, EXIF_IFD = 0x8825, 0x927C, 0x8769
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
EXIF_PREFIX = b"Exif\x00\x00"
PLACES = re.compile(  # names of XMP properties
    rb"GPS|Location|photoshop:(City|State|Country)|Iptc4xmp(Core|Ext):(Country|City|Province|Sublocation|WorldRegion)",
    re.IGNORECASE,
)
IPTC_PLACES = re.compile(rb"\x1c\x02[\x1a\x1b\x5a\x5c\x5f\x64\x65]")  # 2:26, 27, 90, 92, 95, 100, 101
PHOTOSHOP_COPIES = re.compile(rb"8BIM\x04[\x22\x23\x24]")  # EXIF, EXIF 3 and XMP
PNG_PROFILE = re.compile(rb"Raw profile type (exif|APP1|iptc|8bim|xmp)\x00", re.IGNORECASE)
PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
PNG_PLACE = re.compile(rb"GPS|Latitude|Longitude|Geo-?tag", re.IGNORECASE)  # keywords that need no look at the text
PNG_METADATA = re.compile(rb"xmp|exif|iptc|photoshop", re.IGNORECASE)
TEXT_LIMIT_BYTES = 4_000_000  # a text that is longer once it is decompressed is not read, but left out
CREDENTIALS = {b"\xeb", b"caBX", b"C2PA"}
METADATA = {b"\xe1", b"\xe2", b"\xed", b"XMP ", b"EXIF", b"eXIf", b"iTXt", b"tEXt", b"zTXt", *CREDENTIALS}
PADDING = b"\x00\r\n\t "
SCAN_END = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")  # the next marker behind entropy-coded data


class Chunk(NamedTuple):
    """One chunk of a file: its kind, where it begins and ends, and where its content does."""

    kind: bytes
    start: int
    content: int
    content_end: int
    end: int


def without_location(data: bytes) -> bytes:
    """The picture file ``data`` without its whereabouts; the same object if it has none."""
    if data[:2] == b"\xff\xd8" and (end := _picture_end(data)) is not None:
        data = data[:end]
        return _rewritten(data, lambda kind, content: _names_place(kind, content) or content.startswith(b"MPF\x00"))
    return _rewritten(data, _names_place)


def without_gps(exif: bytes) -> bytes:
    """The TIFF bytes ``exif`` without its GPS directories and, if it had one, the maker's notes; nothing else moves but
    the entries behind the one that is left out."""
    block, order = bytearray(exif), _order(exif)
    if not order:
        return exif
    found = [_drop(block, order, at, GPS) for at in _directories(block, order)]
    for place in filter(None, found):
        _blank(block, order, place)
    for at in _directories(block, order) if any(found) else ():
        if details := _value(block, order, at, EXIF_IFD):
            _drop(block, order, details, MAKER_NOTE)
    return bytes(block) if any(found) else exif


def _order(exif: bytes) -> str:
    """How ``struct`` names the order of its bytes; empty if these are no TIFF bytes with a directory."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4], "")
    return order if order and _directories(bytearray(exif), order) else ""


def _directories(block: bytearray, order: str) -> list[int]:
    """Where the main directory lies, and that of the preview."""
    [first] = struct.unpack_from(order + "I", block, 4) if len(block) >= 8 else [0]
    places = [first] if 8 <= first <= len(block) - 2 else []
    if places and (behind := first + 2 + 12 * len(list(_entries(block, order, first)))) + 4 <= len(block):
        [second] = struct.unpack_from(order + "I", block, behind)
        places += [second] if 8 <= second <= len(block) - 2 and second != first else []
    return places


def _entries(block: bytearray, order: str, at: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(place of the entry, tag, type, count, value or offset) of the directory at ``at``."""
    if not 8 <= at <= len(block) - 2:
        return
    [count] = struct.unpack_from(order + "H", block, at)
    for place in range(at + 2, min(at + 2 + 12 * count, len(block) - 11), 12):
        yield place, *struct.unpack_from(order + "HHII", block, place)


def _value(block: bytearray, order: str, at: int, wanted: int) -> int | None:
    return next((value for _, tag, _, _, value in _entries(block, order, at) if tag == wanted), None)


def _drop(block: bytearray, order: str, at: int, wanted: int) -> int | None:
    """Leave the entry ``wanted`` out of the directory at ``at``, with the bytes that it points to; where these lay."""
    entries = list(_entries(block, order, at))
    found = next((entry for entry in entries if entry[1] == wanted), None)
    if found is None:
        return None
    _blank_value(block, *found[2:])
    end = min(at + 2 + 12 * len(entries) + 4, len(block))  # with the offset of the next directory
    block[found[0] : end] = block[found[0] + 12 : end] + bytes(12)
    struct.pack_into(order + "H", block, at, len(entries) - 1)
    return found[4]


def _blank(block: bytearray, order: str, at: int) -> None:
    """Overwrite the directory at ``at`` and the values that it points to with zeros."""
    entries = list(_entries(block, order, at))
    for _, _, kind, count, value in entries:
        _blank_value(block, kind, count, value)
    end = min(at + 2 + 12 * len(entries), len(block))
    if entries:
        block[at:end] = bytes(end - at)


def _blank_value(block: bytearray, kind: int, count: int, value: int) -> None:
    size = SIZES.get(kind, 0) * count
    if size > 4 and value >= 8 and value + size <= len(block):
        block[value : value + size] = bytes(size)


def _names_place(kind: bytes, content: bytes) -> bool:
    """Whether a chunk that is not EXIF may say where a photo was taken."""
    if kind in CREDENTIALS:
        return _has_place(content)
    if kind in {b"\xe1", b"XMP "}:
        is_extended = content.startswith(b"http://ns.adobe.com/xmp/extension/\x00")
        return not content.startswith(EXIF_PREFIX) and (is_extended or _has_place(content))
    if kind == b"\xed":
        return bool(IPTC_PLACES.search(content) or PHOTOSHOP_COPIES.search(content))
    return kind in PNG_TEXTS and _text_names_place(kind, content)


def _has_place(text: bytes) -> bool:
    """Whether ``text`` has the name of a property of places, in any encoding that spells it with NULs between."""
    return PLACES.search(text.replace(b"\x00", b"")) is not None


def _text_names_place(kind: bytes, content: bytes) -> bool:
    """Whether a text of a PNG may say where a photo was taken: by its keyword, or as XMP or EXIF that names a place."""
    keyword = content.partition(b"\x00")[0]
    if PNG_PROFILE.match(content) or PNG_PLACE.search(keyword) or PLACES.search(keyword):
        return True
    if (text := _png_text(kind, content)) is None:
        return True
    is_metadata = PNG_METADATA.search(keyword) or b"rdf:RDF" in text.replace(b"\x00", b"")
    return bool(is_metadata) and _has_place(text)


def _png_text(kind: bytes, content: bytes) -> bytes | None:
    """The text behind the keyword of a PNG's chunk; None if it cannot be decompressed, or is longer than the limit."""
    _, _, text = content.partition(b"\x00")
    is_compressed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] != b"\x00")
    text = text if kind == b"tEXt" else text[1:] if kind == b"zTXt" else text[2:].split(b"\x00", 2)[-1]
    if not is_compressed:
        return text
    packed = zlib.decompressobj()
    try:
        found = packed.decompress(text, TEXT_LIMIT_BYTES)
    except zlib.error:
        return None
    return None if packed.unconsumed_tail else found


def _rewritten(data: bytes, is_unwanted: Callable[[bytes, bytes], bool]) -> bytes:
    """``data`` without the chunks that are unwanted (asked by kind and content) and without GPS in its EXIF."""
    parts, done = [], 0
    for chunk in _chunks(data):
        content = data[chunk.content : chunk.content_end]
        new = b"" if is_unwanted(chunk.kind, content) else _without_gps(data, chunk, content)
        if new is not None:
            parts += [data[done : chunk.start], new]
            done = chunk.end
    if not parts:
        return data
    result = b"".join([*parts, data[done:]])
    return _resized_webp(result) if result[:4] == b"RIFF" else result


def _without_gps(data: bytes, chunk: Chunk, content: bytes) -> bytes | None:
    """A chunk of EXIF without its GPS, as long as before; None if it stays as it is."""
    prefix = EXIF_PREFIX if content.startswith(EXIF_PREFIX) else b""
    if chunk.kind not in {b"eXIf", b"EXIF"} and not (chunk.kind == b"\xe1" and prefix):
        return None
    exif = content[len(prefix) :]
    if (new := without_gps(exif)) == exif:
        return None
    tail = data[chunk.content_end : chunk.end]
    if chunk.kind == b"eXIf":
        tail = struct.pack(">I", zlib.crc32(chunk.kind + prefix + new))
    return data[chunk.start : chunk.content] + prefix + new + tail


def _chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of METADATA in a JPEG (before its first scan), PNG or WEBP, with what frames them."""
    before, after = {b"\xff\xd8": (4, 0), b"\x89P": (8, 4)}.get(data[:2], (8, 0))
    for kind, start, end in (chunk for chunk in chunks(data) if chunk[0] in METADATA):
        padding = end & 1 if data[:4] == b"RIFF" else 0
        yield Chunk(kind, start - before, start, end, end + after + padding)


def _resized_webp(data: bytes) -> bytes:
    """A WEBP whose header says how long it is, and whether it has XMP."""
    header = bytearray(data[:30])
    struct.pack_into("<I", header, 4, len(data) - 8)
    if data[12:16] == b"VP8X" and not any(chunk.kind == b"XMP " for chunk in _chunks(data)):
        header[20] &= ~0x04
    return bytes(header) + data[30:]


def _picture_end(data: bytes) -> int | None:
    """Where the first picture of a JPEG ends, if more than padding lies behind it.

    It ends with the end marker behind its own scans, whatever the file ends with; or, without one, where another
    picture begins.
    """
    at = max((end for _, _, end in chunks(data)), default=2)
    while (marker := SCAN_END.search(data, at)) is not None:
        if marker[0] in {b"\xff\xd9", b"\xff\xd8"}:
            end = marker.end() if marker[0] == b"\xff\xd9" else marker.start()
            return end if "more_pictures" in blocks_of(data) or data[end:].strip(PADDING) else None
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return None
