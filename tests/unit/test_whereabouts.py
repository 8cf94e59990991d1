"""A file loses its whereabouts and nothing else: not a pixel, not its camera, not its colour profile."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from tasks.pictures import imaging
from tasks.pictures.exif import exif
from tasks.pictures.lossless import png_chunk
from tasks.pictures.whereabouts import without_gps, without_location

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOTE = b"maker's own words, which may name a town" * 3


def exif_block(orientation: int = 1) -> bytes:
    """EXIF of a camera with GPS, maker's notes, and entries behind both."""
    block = Image.Exif()
    block[0x010F], block[0x0110], block[0x0112], block[0x0131] = "Camera & Sons", "Model 1", orientation, "Firmware 1.0"
    block[0x9C9B] = "behind GPS".encode("utf-16-le")
    block.get_ifd(0x8769).update({0x9003: "2026:01:02 03:04:05", 0x927C: NOTE, 0xA434: "A lens"})
    block.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 30.123), 3: "E", 4: (2.0, 17.0, 40.0), 29: "2026:01:02"})
    return block.tobytes()


def xmp(words: str) -> bytes:
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description {words}/></x:xmpmeta>".encode()


GPS_XMP, PLAIN_XMP = xmp("exif:GPSLatitude='48,51.5N'"), xmp("xmp:CreatorTool='Firmware 1.0'")


LATITUDE = struct.pack(">IIII", 48, 1, 51, 1)


def encoded(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **({"lossless": True} if kind == "WEBP" else {}), **options)
    return out.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with one more segment behind its first."""
    at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + segment(marker, content) + data[at:]


def iptc(record: int, dataset: int, text: bytes) -> bytes:
    """A Photoshop block with one IPTC record."""
    words = b"\x1c" + bytes([record, dataset]) + struct.pack(">H", len(text)) + text
    return (
        b"Photoshop 3.0\x00"
        + b"8BIM\x04\x04\x00\x00"
        + struct.pack(">I", len(words))
        + words
        + b"\x00" * (len(words) & 1)
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_gps_goes_and_the_rest_stays(kind: str) -> None:
    """No GPS directory, no maker's notes; the same camera, lens, profile and pixels; as long as before."""
    data = encoded(kind, exif=exif_block(), icc_profile=PROFILE)
    clean = without_location(data)
    image = Image.open(io.BytesIO(clean))
    image.load()
    found = image.getexif()
    assert not found.get_ifd(0x8825)
    assert 0x8825 not in found
    assert (found[0x010F], found[0x0110], found[0x0131]) == ("Camera & Sons", "Model 1", "Firmware 1.0")
    assert found.get_ifd(0x8769)[0xA434] == "A lens"
    assert 0x927C not in found.get_ifd(0x8769)
    assert image.info["icc_profile"] == PROFILE
    assert exif(clean) == exif(data)._replace(has_maker_note=False)
    assert len(clean) == len(data)
    assert not [secret for secret in (NOTE[:20], b"2026:01:02\x00", LATITUDE) if secret not in data or secret in clean]
    assert np.array_equal(imaging.decode_upright(clean, 1), imaging.decode_upright(data, 1))
    assert without_location(clean) is clean, "there is nothing left to do"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_without_a_place_is_not_touched(kind: str) -> None:
    """The very object comes back: EXIF, XMP and profile of a plain file stay byte for byte."""
    plain = Image.Exif()
    plain[0x010F] = "Camera"
    more = {"xmp": PLAIN_XMP} if kind != "PNG" else {}
    data = encoded(kind, exif=plain.tobytes(), icc_profile=PROFILE, **more)
    assert without_location(data) is data
    assert without_location(encoded(kind)) == encoded(kind)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "words", ["exif:GPSLatitude='48,51.5N'", "photoshop:City='Paris'", "Iptc4xmpCore:Location='Seine'",
              "Iptc4xmpExt:LocationCreated='x'", "Iptc4xmpCore:CountryCode='FR'", "GCamera:MicroVideoLocation='x'"],
)  # fmt: skip
def test_xmp_that_names_a_place_goes(kind: str, words: str) -> None:
    """The whole packet is left out, and a reader finds a sound file."""
    clean = without_location(encoded(kind, xmp=xmp(words)))
    image = Image.open(io.BytesIO(clean))
    assert np.array_equal(np.asarray(image.convert("RGB")), imaging.decode_upright(clean, 1))
    assert "xmp" not in image.info
    assert words.split("=")[0].encode() not in clean
    if kind == "WEBP":
        assert int.from_bytes(clean[4:8], "little") == len(clean) - 8
        assert not clean[20] & 0x04


def test_places_in_png_text_go() -> None:
    """XMP with a place, and profiles that old programs write as text, are left out; a title stays."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", GPS_XMP.decode())
    info.add_text("Raw profile type exif", "\nexif\n 8\n4d4d002a\n", zip=True)
    info.add_text("Title", "Paris")
    clean = without_location(encoded("PNG", pnginfo=info))
    image = Image.open(io.BytesIO(clean))
    image.load()
    assert {name for name in image.info if isinstance(name, str)} >= {"Title"}
    assert not {"XML:com.adobe.xmp", "Raw profile type exif"} & set(image.info)


PACKED = zlib.compress(GPS_XMP)
BOMB = zlib.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    ("kind", "content", "goes"),
    [
        (b"tEXt", b"exif:GPSLatitude\x0048/1, 51/1, 29/1", True), (b"tEXt", b"exif:Model\x00Camera", False),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED, True), (b"zTXt", b"XML:com.adobe.xmp\0\0" + PACKED, True),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + GPS_XMP.decode().encode("utf-16"), True),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PLAIN_XMP), False),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"<rdf:RDF>" + GPS_XMP), True), (b"zTXt", b"Comment\0\0" + BOMB, True),
        (b"zTXt", b"XML:com.adobe.xmp\0\0broken", True), (b"zTXt", b"Comment\0\0" + zlib.compress(b"GPS"), False),
        (b"tEXt", b"photoshop:City\0Paris", True), (b"tEXt", b"Title\0Location", False), (b"iTXt", b"Title", False),
    ],
)  # fmt: skip
def test_texts_of_a_png_are_read_however_they_are_packed(kind: bytes, content: bytes, goes: bool) -> None:
    """Properties of places go by keyword or in XMP, compressed or in UTF-16; what cannot be read goes too."""
    plain = encoded("PNG")
    at = plain.index(b"IDAT") - 4
    assert (without_location(plain[:at] + png_chunk(kind, content) + plain[at:]) == plain) == goes


def test_xmp_in_utf_16_is_read() -> None:
    """NULs between the letters hide no name."""
    packet = b"http://ns.adobe.com/xap/1.0/\x00" + GPS_XMP.decode().encode("utf-16")
    assert without_location(with_segment(encoded("JPEG"), 0xE1, packet)) == encoded("JPEG")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100}])
def test_a_picture_behind_the_picture_goes(options: dict[str, Any]) -> None:
    """Also where the file ends as a JPEG does and nothing tells of a second one."""
    first = encoded("JPEG", **options)
    assert without_location(first + encoded("JPEG", exif=exif_block())) == first
    assert without_location(first + b"\x00" + encoded("JPEG", exif=exif_block()) + bytes(9)) == first
    assert without_location(first) is first


@pytest.mark.parametrize(
    ("content", "goes"),
    [(iptc(2, 90, b"Paris"), True), (iptc(2, 101, b"France"), True), (iptc(2, 80, b"Ann"), False),
     (b"Photoshop 3.0\x008BIM\x04\x24\x00\x00\x00\x00\x00\x02ab", True)],
)  # fmt: skip
def test_photoshop_blocks_with_a_place_go(content: bytes, goes: bool) -> None:
    """City, country and nested XMP take their block along; a by-line alone stays."""
    data = with_segment(encoded("JPEG"), 0xED, content)
    assert (content not in without_location(data)) == goes


def test_what_follows_the_picture_goes() -> None:
    """A second picture with a place of its own, and a video behind a picture, are cut off; padding is not."""
    first, second = encoded("JPEG"), encoded("JPEG", exif=exif_block())
    assert without_location(first + second).startswith(first)
    assert b"Camera" not in without_location(with_segment(first, 0xE2, b"MPF\x00MM\x00*") + second)
    assert without_location(with_segment(first, 0xE2, b"MPF\x00MM\x00*") + second) == first
    assert without_location(first + b"\x00\x00\x00\x18ftypmp42 video") == first
    assert without_location(encoded("JPEG", progressive=True) + b"ftypmp42") == encoded("JPEG", progressive=True)
    padded = first + b"\x00\n"
    assert without_location(padded) is padded


@pytest.mark.parametrize(
    ("content", "goes"), [(b"JP \x00\x01 exif:GPSLatitude", True), (b"JP \x00\x01 c2pa.created", False)]
)
def test_credentials_that_name_a_place_go(content: bytes, goes: bool) -> None:
    """Content credentials may repeat the GPS of EXIF; others stay."""
    assert (content not in without_location(with_segment(encoded("JPEG"), 0xEB, content))) == goes


def test_extended_xmp_goes() -> None:
    """It is a part of a packet that may lie anywhere, so it is not read but left out."""
    data = with_segment(encoded("JPEG"), 0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + bytes(40))
    assert b"extension" not in without_location(data)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_broken_files_raise_nothing(noise: bytes, at: int, value: int) -> None:
    """EXIF with any byte changed, and any bytes at all, give a file with the same pixels, or themselves."""
    broken = bytearray(exif_block())
    broken[at % len(broken)] = value
    data = encoded("JPEG", exif=bytes(broken))
    assert np.array_equal(imaging.decode_upright(without_location(data), 1), imaging.decode_upright(data, 1))
    assert len(without_gps(bytes(broken)[6:])) == len(broken) - 6
    for head in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\x00\x00\x00WEBP", b"II*\x00", b"MM\x00*"):
        without_location(head + noise)
        assert len(without_gps(head + noise)) == len(head + noise)


def test_real_files_lose_gps_and_no_pixel(shared: Path) -> None:
    """Files of many cameras, among them broken ones: no GPS is left, and what decoded decodes to the same."""
    touched = 0
    for path in sorted((shared / "exif").iterdir()):
        data = path.read_bytes()
        clean = without_location(data)
        touched += clean is not data
        assert without_location(clean) is clean
        if clean is not data:
            with suppress(imaging.BadImage):  # cut off as they came
                assert np.array_equal(imaging.decode_upright(data, 1), imaging.decode_upright(clean, 1))
                assert not Image.open(io.BytesIO(clean)).getexif().get_ifd(0x8825)
    assert touched >= 3
