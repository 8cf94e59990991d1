"""What a picture file says about itself."""

import io
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from tasks.pictures import exif
from tasks.pictures.containers import blocks_of


def tagged(image_format: str, **tags: object) -> bytes:
    """A small picture with EXIF: orientation, make, model, software, taken, offset."""
    block = Image.Exif()
    numbers = {"orientation": 0x0112, "make": 0x010F, "model": 0x0110, "software": 0x0131}
    for name, number in numbers.items():
        if name in tags:
            block[number] = tags[name]
    details = block.get_ifd(0x8769)
    if "taken" in tags:
        details[0x9003] = tags["taken"]
    if "offset" in tags:
        details[0x9011] = tags["offset"]
    out = io.BytesIO()
    Image.new("RGB", (32, 16), "green").save(out, image_format, exif=block)
    return out.getvalue()


def tiff(entries: list[tuple[int, int, int, bytes]], order: str = "<") -> bytes:
    """A JPEG with one hand-made directory of (tag, type, count, four bytes of value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    rows = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    block = b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + rows + bytes(4)
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + b"\xff\xd9"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_facts_are_read_from_every_container(image_format: str) -> None:
    """Orientation, camera, software and time come from JPEG, PNG and WEBP alike; the time is in UTC."""
    data = tagged(
        image_format, orientation=8, make="NIKON", model="D40 ", software="Ver.1.10",
        taken="2010:05:23 10:22:42", offset="+02:00",
    )  # fmt: skip
    taken = datetime(2010, 5, 23, 8, 22, 42, tzinfo=UTC)
    assert exif.exif(data) == exif.ExifFacts(8, "NIKON", "D40", "Ver.1.10", taken)


def test_times_and_sizes_are_compared_with_what_is_there() -> None:
    """The time between shutter and writing needs no zone; sizes, maker's note and Windows' padding are seen."""
    block = Image.Exif()
    block[0x0132] = "2010:05:23 11:22:52"
    block[0xEA1C] = b"\0\0"
    details = block.get_ifd(0x8769)
    details |= {0x9003: "2010:05:23 10:22:42", 0x9011: "-05:00", 0xA002: 640, 0xA003: 480, 0x927C: b"Nikon"}
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", exif=block)
    facts = exif.exif(out.getvalue())
    assert (facts.modified_after_s, facts.noted_size) == (3610, (640, 480))
    assert (facts.has_maker_note, facts.is_windows_tagged) == (True, True)


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "2010:02:31 10:00:00", "yesterday", "    :  :     :  :  "])
def test_an_impossible_time_is_none(text: str) -> None:
    """A clock that was never set is no time; a missing offset counts as UTC."""
    assert exif.exif(tagged("JPEG", taken=text)).taken is None
    assert exif.exif(tagged("JPEG", taken="2010:05:23 10:22:42")).taken == datetime(2010, 5, 23, 10, 22, 42, tzinfo=UTC)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "wanted"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1), (65535, 1)])
def test_an_invalid_orientation_is_upright(order: str, value: int, wanted: int) -> None:
    """Both byte orders are read; a value outside of 1..8 means 1."""
    packed = struct.pack(order + "HH", value, 0)
    assert exif.exif(tiff([(0x0112, 3, 1, packed)], order)).orientation == wanted


def test_entries_that_point_outside_do_not_exist() -> None:
    """A huge count, a far offset and an unknown type cost only themselves."""
    near, far = struct.pack("<I", 0), struct.pack("<I", 2**32 - 1)
    data = tiff([(0x010F, 2, 2**32 - 1, near), (0x0110, 2, 40, far), (0x0131, 99, 4, far), (0x0112, 3, 1, b"\3\0\0\0")])
    assert exif.exif(data) == exif.ExifFacts(orientation=3)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8\xff\xe1\xff\xff", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffeXIf"]
)
def test_a_file_without_exif_has_no_facts(data: bytes) -> None:
    """Absent and cut-off blocks read as nothing."""
    assert exif.exif(data) == exif.ExifFacts()


def with_thumbnail(thumbnail: bytes, order: str) -> bytes:
    """A JPEG whose EXIF notes orientation 6 twice, a size of 80 x 40, and holds ``thumbnail``."""

    def directory(entries: list[tuple[int, int, int]], link: int) -> bytes:
        rows = b"".join(
            struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + ("HH" if kind == 3 else "I"), *value)
            for tag, kind, number in entries
            for value in [(number, 0) if kind == 3 else (number,)]
        )
        return struct.pack(order + "H", len(entries)) + rows + struct.pack(order + "I", link)

    main = directory([(0x0112, 3, 6), (0x8769, 4, 38)], 68)
    details = directory([(0xA002, 4, 80), (0xA003, 3, 40)], 0)
    second = directory([(0x0112, 3, 6), (0x0201, 4, 110), (0x0202, 4, len(thumbnail))], 0)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block = b"Exif\0\0" + head + main + details + second + thumbnail
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(block) + 2) + block + b"\xff\xd9"


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_exif_of_a_turned_file_is_upright_throughout(order: str) -> None:
    """Both orientations are 1, the noted sides are swapped, the thumbnail is the turned one; the length is kept."""
    data = with_thumbnail(b"\xff\xd8 thumbnail", order)
    blocks = blocks_of(data)
    turned = exif.turned_exif(blocks, is_transposed=True, turn=lambda jpeg: jpeg.upper()[:-1])
    assert turned is not None
    after = exif.exif(data.replace(data[12:-2], turned))
    assert len(turned) == len(data[12:-2])
    assert (after.orientation, after.noted_size, after.thumbnail) == (1, (40, 80), b"\xff\xd8 THUMBNAI")
    assert turned.count(struct.pack(order + "HHIH", 0x0112, 3, 1, 1)) == 2


@pytest.mark.parametrize("turned", [None, b"\xff\xd8" + bytes(500)])
def test_a_thumbnail_that_cannot_turn_is_unlinked(turned: bytes | None) -> None:
    """Where it does not turn, or has grown, none is left that would lie on its side; all else is as it was."""
    data = with_thumbnail(b"\xff\xd8 thumbnail", "<")
    block = exif.turned_exif(blocks_of(data), is_transposed=False, turn=lambda _: turned)
    assert block is not None
    after = exif.exif(data.replace(data[12:-2], block))
    assert after == exif.exif(data)._replace(orientation=1, thumbnail=b"")


def test_real_exif_is_read_without_a_word(shared: Path) -> None:
    """All 61 files read without an error or a warning, three broken ones among them."""
    files = {path.name: exif.exif(path.read_bytes()) for path in sorted((shared / "exif").glob("*.jpg"))}
    assert len(files) == 61
    for value in range(1, 9):
        assert files[f"f{value}-exif.jpg"].orientation == value
    assert files["has-lens-info.jpg"].model == "iPhone 4S"
    assert files["infinite_loop_exif.jpg"].software == "Adobe Photoshop CS2 Macintosh"
    assert sum(facts.make is not None for facts in files.values()) == 51
    assert len({facts.make for facts in files.values()}) > 20


def test_facts_agree_with_pillow_on_real_files(shared: Path) -> None:
    """Camera and software of real photographs are what Pillow reads."""
    for path in sorted((shared / "photos").glob("*/*.webp"))[::8]:
        with Image.open(path) as image:
            theirs = image.getexif()
        ours = exif.exif(path.read_bytes())
        for mine, tag in ((ours.make, 0x010F), (ours.model, 0x0110), (ours.software, 0x0131)):
            assert mine == (str(theirs.get(tag, "")).split("\0")[0].strip() or None)
