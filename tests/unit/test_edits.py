"""Signs of editing."""

from pathlib import Path

import pytest

from tasks.edits import edit_facts
from tasks.exif import Embedded, ExifFacts, embedded, facts

NOTHING = Embedded(None, b"", b"", is_saved_for_web=False, is_progressive=False, has_more_pictures=False)


def camera(software: str | None = None) -> ExifFacts:
    return ExifFacts(make="NIKON", model="COOLPIX L3", software=software)


@pytest.mark.parametrize(
    "software",
    [
        None, "Ver.1.10", "Version 1.0", "7.1.1", "17.5", "COOLPIX L3v1.2", "COOLPIX L18 V1.1", "Optio S6 Ver 1.00",
        "Digital Camera FinePix Z1      Ver1.00", "M7500BSAAAAAAD3050", "G991BXXU3AUE1", "HDR+ 1.0.540104767zd",
        "1.00.018PR", "Firmware Version 1.0.4", "COOLPIX L3", "V 12.40",
    ],
)  # fmt: skip
def test_firmware_is_no_editor(software: str | None) -> None:
    """A camera's own name and version leave the photo an original."""
    assert edit_facts("JPEG", camera(software), NOTHING)[0] == "camera_original"


@pytest.mark.parametrize(
    ("software", "tier"),
    [
        ("Adobe Photoshop CS3 Macintosh", "edited"), ("GIMP 2.8.14", "edited"), ("Picasa 3.0", "edited"),
        ("Adobe Photoshop Lightroom 5.7.1 (Windows)", "developed"), ("darktable 3.6.1", "developed"),
        ("Capture NX 1.0.1 W", "developed"), ("digiKam-0.9.1", "unknown"), ("QuickTime 7.6.6", "unknown"),
        ("Microsoft Windows Photo Viewer 6.1.7600.16385", "unknown"),
    ],
)  # fmt: skip
def test_programs_are_told_apart(software: str, tier: str) -> None:
    """Editors, raw converters and mere viewers each lead to their tier, with the name as evidence."""
    found, evidence = edit_facts("JPEG", camera(software), NOTHING)
    assert found == tier
    assert evidence == [f"software:{software}"]


@pytest.mark.parametrize(
    ("blocks", "tier"),
    [
        (NOTHING._replace(xmp=b'<x xmp:CreatorTool="GIMP 2.10"/>'), "edited"),
        (NOTHING._replace(xmp=b"<xmp:CreatorTool>Snapseed</xmp:CreatorTool>"), "edited"),
        (NOTHING._replace(xmp=b'<x stEvt:softwareAgent="Adobe Photoshop CC (Windows)"/>'), "edited"),
        (NOTHING._replace(xmp=b'<x crs:HasSettings="True"/>'), "developed"),
        (NOTHING._replace(xmp=b"<xmpMM:DerivedFrom/>"), "unknown"),
        (NOTHING._replace(xmp=b'<x xmp:CreatorTool="" xmp:Rating="3"/>'), "camera_original"),
        (NOTHING._replace(photoshop=b"Photoshop 3.0\x008BIM\x04\x04"), "camera_original"),
        (NOTHING._replace(photoshop=b"Photoshop 3.0\x008BIM\x04\x06"), "edited"),
        (NOTHING._replace(is_saved_for_web=True), "edited"),
    ],
)
def test_blocks_of_programs_are_evidence(blocks: Embedded, tier: str) -> None:
    """XMP and Photoshop blocks speak; captions alone (IPTC) do not."""
    assert edit_facts("JPEG", camera(), blocks)[0] == tier


def test_the_strongest_sign_decides_and_all_are_kept() -> None:
    """An editor after a converter means edited; the evidence names both."""
    blocks = NOTHING._replace(xmp=b'<x crs:HasSettings="True" stEvt:softwareAgent="GIMP 2.10"/>')
    tier, evidence = edit_facts("JPEG", camera("darktable 3.6.1"), blocks)
    assert tier == "edited"
    assert evidence == ["software:darktable 3.6.1", "xmp_history:GIMP 2.10", "xmp_camera_raw:crs"]


def test_without_a_camera_nothing_is_an_original() -> None:
    """Missing EXIF, and formats that no camera writes, stay unknown."""
    assert edit_facts("JPEG", ExifFacts(), NOTHING) == ("unknown", [])
    assert edit_facts("WEBP", camera(), NOTHING) == ("unknown", ["no_camera_format:WEBP"])


def test_real_files_have_the_expected_tiers(shared: Path) -> None:
    """Of 61 real EXIF blocks three name Photoshop or carry its mark, and one converter or viewer makes no original."""
    tiers = {}
    for path in sorted((shared / "exif").glob("*.jpg")):
        data = path.read_bytes()
        blocks = embedded(data)
        tiers[path.name] = edit_facts("JPEG", facts(data, blocks), blocks)[0]
    edited = {name for name, tier in tiers.items() if tier == "edited"}
    assert edited == {
        "2009-06-11-19-23-18-sep-2009-06-11-19-23-18a.jpg", "2011-10-28-17-50-18-sep-2011-10-28-17-50-18a.jpg",
        "infinite_loop_exif.jpg", "sample1.jpg",
    }  # fmt: skip
    assert tiers["2010-06-20-20-07-39-sep-2010-06-20-20-07-39a.jpg"] == "unknown"  # QuickTime
    assert sum(tier == "camera_original" for tier in tiers.values()) >= 40
