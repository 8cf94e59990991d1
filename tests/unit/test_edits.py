"""Signs of editing."""

import csv
import io
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.pictures import imaging, programs
from tasks.pictures.containers import Blocks, blocks_of
from tasks.pictures.edits import edit_facts
from tasks.pictures.exif import ExifFacts, facts

NOTHING = Blocks()
TABLE = Path(__file__).resolve().parents[1] / "data" / "edit_tiers.csv"
SIZE = (640, 480)


def camera(software: str | None = None, **more: object) -> ExifFacts:
    """What a camera's own file says."""
    return ExifFacts(make="NIKON", model="COOLPIX L3", software=software, has_maker_note=True)._replace(**more)


def segments(*parts: tuple[int, bytes]) -> Blocks:
    """The blocks of a JPEG of these segments."""
    body = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(part) + 2) + part for marker, part in parts)
    return blocks_of(b"\xff\xd8" + body + b"\xff\xd9")


def xmp(packet: bytes) -> Blocks:
    return segments((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet))


def jpeg(width: int, height: int, bars: int = 0, **options: object) -> bytes:
    """A bright JPEG with black bars above and below."""
    pixels = np.full((height, width, 3), 180, np.uint8)
    pixels[:bars] = pixels[height - bars :] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "software", [None, "Ver.1.10", "Version 1.0", "7.1.1", "COOLPIX L3v1.2", "Nikon Coolpix L3 V1.1", "1.00.018PR",
    "Firmware Version 1.0.4", "COOLPIX L3", "V 12.40", "NIKON v1.0", "DVWare 1.0", "MediaTek Camera Application",
    "bullhead-user 6.0.1 MTC20F 3031278 release-keys", "coolpix l3-MSM1530032L-V10i"],
)  # fmt: skip
def test_firmware_is_no_editor(software: str | None) -> None:
    """A camera's own name and version leave the photo an original, and stand in the evidence."""
    tier, evidence = edit_facts("JPEG", camera(software), NOTHING, SIZE)
    assert tier == "camera_original"
    assert evidence == ([f"firmware:{software}"] if software else [])


@pytest.mark.parametrize(
    ("make", "model", "software"),
    [
        ("PENTAX Corporation", "PENTAX Optio S6", "Optio S6 Ver 1.00"), ("HTC", "RAPH800", "M7500BSAAAAAAD3050"),
        ("FUJIFILM", "FinePixZ1", "Digital Camera FinePix Z1      Ver1.00"), ("samsung", "SM-G991B", "G991BXXU3AUE1"),
        ("Google", "Pixel 6", "HDR+ 1.0.540104767zd"), ("Apple", "iPhone 14", "iOS 17.1"),
        ("Sony Ericsson", "Z550a", "R6GA004     prgCXC1250583_GENERIC_M 2.0"),
        ("Sony", "F8331", "41.2.A.7.76_0"), ("HUAWEI", "VOG-L29", "VOG-L29 10.0.0.168(C431E22R2P5)"),
    ],
)  # fmt: skip
def test_a_maker_s_names_count_in_its_own_files(make: str, model: str, software: str) -> None:
    """What a maker's cameras write is firmware there, and a program's name in the file of another."""
    assert programs.kind_of(software, make, model) == "firmware"
    assert programs.kind_of(software, "Canon", "Canon EOS 5D") == "unlisted"


@pytest.mark.parametrize(
    ("software", "tier"),
    [
        ("Adobe Photoshop CS3 Macintosh", "edited"), ("GIMP 2.8.14", "edited"), ("Picasa 3.0", "edited"),
        ("Adobe Photoshop Lightroom 5.7.1 (Windows)", "developed"), ("darktable 3.6.1", "developed"),
        ("Capture NX 1.0.1 W", "developed"), ("digiKam-0.9.1", "unknown"), ("QuickTime 7.6.6", "unknown"),
        ("Microsoft Windows Photo Viewer 6.1.7600.16385", "unknown"), ("XnView v2.40", "unknown"),
        ("PX v1.0", "unknown"), ("Nikon Browser 6.1.0 W", "unknown"), ("500px", "unknown"), ("SNOW3", "unknown"),
        ("COOLPIX L18 V1.1", "unknown"), ("PortraitPro v15.7", "edited"), ("PhotoDirector v8.0", "edited"),
        ("Neat Image v8.2", "edited"), ("BeautyCam v9.2", "edited"), ("Zoner Photo Studio Ver. 12", "edited"),
        ("B612", "edited"), ("PHOTOSTUDIO5", "edited"), ("ULEAD PHOTO EXPRESS V1.0", "edited"),
    ],
)  # fmt: skip
def test_programs_are_told_apart(software: str, tier: str) -> None:
    """Editors, raw converters and mere viewers each lead to their tier, in either tag, with the name as evidence."""
    for tag, kind in (("software", "software"), ("processing_software", "processing")):
        found, evidence = edit_facts("JPEG", camera(**{tag: software}), NOTHING, SIZE)
        assert found == tier
        assert evidence == [f"{kind}:{software}"]


PHOTOSHOP, HISTORY = b"Photoshop 3.0\0", b'<x stEvt:action="saved" stEvt:softwareAgent="%s"/>'
NEUTRAL = b'<x crs:HasSettings="True" crs:Exposure2012="0.00" crs:Contrast2012="0"/>'
CHOSEN = b'<x crs:HasSettings="True" crs:Exposure2012="+0.45" crs:Shadows>12</crs:Shadows crs:ParametricShadows="9"/>'


@pytest.mark.parametrize(
    ("blocks", "tier", "evidence"),
    [
        (xmp(b'<x xmp:CreatorTool="GIMP 2.10"/>'), "edited", "xmp_tool:GIMP 2.10"),
        (xmp(b"<xmp:CreatorTool>Snapseed</xmp:CreatorTool>"), "edited", "xmp_tool:Snapseed"),
        (xmp(HISTORY % b"Adobe Photoshop CC (Windows)"), "edited", "xmp_history:Adobe Photoshop CC (Windows)"),
        (xmp(HISTORY % b"Adobe Photoshop Camera Raw 9"), "developed", "xmp_history:Adobe Photoshop Camera Raw 9"),
        (xmp(b'<x stEvt:action="cropped"/>'), "unknown", "xmp_action:cropped"),
        (xmp(b"<xmpMM:DerivedFrom/>"), "unknown", "xmp_derived:DerivedFrom"),
        (xmp(b"<photoshop:History>Open</photoshop:History>"), "edited", "xmp_photoshop:History"),
        (xmp(b'<x photoshop:ColorMode="3"/>'), "unknown", "xmp_photoshop:ColorMode"),
        (xmp(b'<x photoshop:Credit="me" xmp:CreatorTool="" xmp:Rating="3"/>'), "camera_original", None),
        (xmp(NEUTRAL), "developed", "camera_raw:neutral"),
        (xmp(CHOSEN), "developed", "camera_raw:2 sliders"),
        (xmp(NEUTRAL + b"<crs:RetouchAreas><rdf:Seq>"), "edited", "camera_raw_retouch:RetouchAreas"),
        (xmp(NEUTRAL + b"<crs:RetouchAreas/>"), "developed", "camera_raw:neutral"),
        (segments((0xED, PHOTOSHOP + b"8BIM\x04\x04")), "camera_original", None),
        (segments((0xED, PHOTOSHOP + b"8BIM\x04\x06")), "edited", "photoshop_resources:1030"),
        (segments((0xED, PHOTOSHOP + b"8BIM\x04\x21")), "edited", "photoshop_resources:1057"),
        (segments((0xEC, b"Ducky\0\1")), "edited", "saved_for_web:Ducky"),
        (segments((0xFE, b"Created with GIMP")), "edited", "comment:Created with GIMP"),
        (segments((0xFE, b"CREATOR: gd-jpeg v1.0")), "unknown", "comment:CREATOR: gd-jpeg v1.0"),
        (segments((0xFE, b"my paint shop, created with love")), "camera_original", None),
        (segments((0xEB, b"JP..jumb c2pa.created digitalCapture")), "camera_original", "c2pa:no edits"),
        (segments((0xEB, b"JP..jumb c2pa.actions c2pa.cropped")), "edited", "c2pa:cropped"),
        (segments((0xEB, b"JP..jumb trainedAlgorithmicMedia")), "edited", "c2pa:trainedAlgorithmicMedia"),
        (segments((0xC2, bytes(15))), "unknown", "progressive:no camera writes it"),
        (segments((0xE0, b"JFIF\0"), (0xE1, b"Exif\0\0II")), "unknown", "jfif:before EXIF"),
        (segments((0xE1, b"Exif\0\0II"), (0xE0, b"JFIF\0")), "camera_original", None),
    ],
)
def test_blocks_of_programs_are_evidence(blocks: Blocks, tier: str, evidence: str | None) -> None:
    """What only editors write means edited, what a rewriting leaves makes it no original, and the rest says nothing."""
    found, signs = edit_facts("JPEG", camera(), blocks, SIZE)
    assert found == tier
    assert signs[-1:] == ([] if evidence is None else [evidence])


@pytest.mark.parametrize(
    ("exif", "tier", "evidence"),
    [
        (camera(modified_after_s=43), "camera_original", []),
        (camera(modified_after_s=-86400), "camera_original", []),
        (camera(modified_after_s=7200), "unknown", ["modified_later:120 min"]),
        (camera(has_maker_note=False), "unknown", ["no_maker_note:NIKON"]),
        (camera(make="HTC", has_maker_note=False), "camera_original", ["no_maker_note:HTC"]),
        (camera(is_windows_tagged=True), "camera_original", ["windows_tags:0xEA1C"]),
        (camera(noted_size=(480, 640)), "camera_original", []),
        (camera(noted_size=(1600, 1200)), "unknown", ["resized:1600x1200 to 640x480"]),
        (camera(noted_size=(960, 640)), "unknown", ["cut:960x640 to 640x480"]),
        (camera(noted_size=(960, 640), modified_after_s=7200), "edited",
         ["modified_later:120 min", "cut:960x640 to 640x480"]),
    ],
)  # fmt: skip
def test_what_exif_remembers_is_held_against_the_file(exif: ExifFacts, tier: str, evidence: list[str]) -> None:
    """One medium sign makes no edit, but no original either; a cut and a rewriting together do."""
    assert edit_facts("JPEG", exif, NOTHING, SIZE) == (tier, evidence)


@pytest.mark.parametrize(
    ("thumbnail", "size", "evidence"),
    [
        (jpeg(160, 120), (640, 480), []),
        (jpeg(160, 120, bars=6), (720, 480), []),  # the bars that DCF asks for
        (jpeg(160, 120), (720, 480), ["thumbnail:160x120"]),  # 4:3 without bars, of a picture of 3:2
        (jpeg(160, 112), (800, 537), []),  # rounded to blocks
        (jpeg(256, 171), (720, 480), []),
        (jpeg(256, 171), (480, 720), ["turned:thumbnail 256x171"]),
        (jpeg(256, 171), (640, 480), ["thumbnail:256x171"]),
        (jpeg(160, 120)[:40], (720, 480), []),
        (jpeg(160, 120).partition(b"\xff\xda")[0], (720, 480), []),
        (b"", (720, 480), []),
    ],
)
def test_thumbnails_remember_the_shape(thumbnail: bytes, size: tuple[int, int], evidence: list[str]) -> None:
    """A thumbnail of another shape is a sign, unless bars or rounding explain it; a broken one says nothing."""
    tier, found = edit_facts("JPEG", camera(thumbnail=thumbnail), NOTHING, size)
    assert found == evidence
    assert tier == ("unknown" if evidence else "camera_original")


def test_tables_are_evidence() -> None:
    """libjpeg's tables decide nothing alone, as some cameras have them, but do with a cut; Photoshop's say more."""
    by_libjpeg, by_photoshop = (blocks_of(jpeg(64, 64, quality=name)) for name in (88, "high"))
    exif = camera(noted_size=(960, 640))
    assert edit_facts("JPEG", camera(), by_libjpeg, SIZE) == ("camera_original", ["ijg_tables:88"])
    assert edit_facts("JPEG", exif, by_libjpeg, SIZE)[0] == "edited"
    assert edit_facts("JPEG", camera(), by_photoshop, SIZE) == ("unknown", ["photoshop_tables:high"])


def test_the_strongest_sign_decides_and_all_are_kept() -> None:
    """An editor after a converter means edited; the evidence names both."""
    blocks = xmp(b'<x crs:HasSettings="True" stEvt:softwareAgent="GIMP 2.10"/>')
    tier, evidence = edit_facts("JPEG", camera("darktable 3.6.1"), blocks, SIZE)
    assert tier == "edited"
    assert evidence == ["software:darktable 3.6.1", "xmp_history:GIMP 2.10", "camera_raw:neutral"]


def test_without_a_camera_nothing_is_an_original() -> None:
    """Missing EXIF, and formats that no camera writes, stay unknown."""
    assert edit_facts("JPEG", ExifFacts(), NOTHING, SIZE) == ("unknown", [])
    assert edit_facts("WEBP", camera(), NOTHING, SIZE) == ("unknown", ["no_camera_format:WEBP"])


def test_one_name_is_read_once() -> None:
    """Names repeat by the thousand; what kind of program they are is looked up."""
    before = programs.kind_of.cache_info().hits
    kind: Callable[[str, str | None, str | None], str] = programs.kind_of
    assert {kind("GIMP 2.10", "NIKON", "D40") for _ in range(3)} == {"edited"}
    assert programs.kind_of.cache_info().hits >= before + 2


def expected() -> dict[str, str]:
    """The tier of each real file, as read from its tags by a person."""
    with TABLE.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(len(row["why"]) > 40 for row in rows)
    return {row["file"]: row["tier"] for row in rows}


def tier_of(path: Path) -> str:
    """The tier of a file; of one that was cut off behind its headers, without its real size."""
    data = path.read_bytes()
    blocks = blocks_of(data)
    return edit_facts(imaging.identify(data), facts(blocks), blocks, blocks.size)[0]


def test_real_files_have_the_expected_tiers(shared: Path) -> None:
    """Each of 61 real files has the tier that its tags speak for, reasoned one by one in the table."""
    found = {path.name: tier_of(path) for path in sorted((shared / "exif").glob("*.jpg"))}
    assert found == expected()
    assert len(found) == 61


def test_real_photographs_have_sensible_tiers(shared: Path) -> None:
    """Of 225 wallpapers and clip pictures one is as its camera wrote it, and every one that names GIMP is edited."""
    files = [path for path in sorted((shared / "photos").glob("*/*")) if path.suffix in {".jpg", ".png", ".webp"}]
    tiers = {path: tier_of(path) for path in files}
    assert [path.name for path, tier in tiers.items() if tier == "camera_original"] == ["Wood.jpg"]
    assert all(tiers[path] == "edited" for path in files if b"GIMP" in path.read_bytes()[:40_000])
    assert Counter(tiers.values())["edited"] < 60
