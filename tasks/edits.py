"""Whether a photo was edited after the camera wrote it: a tier, and the evidence for it.

========================= ===========================================================================================
``edited``                a program that changes pixels left its name or its blocks in the file
``developed``             a raw converter made it: exposure and colour were chosen, nothing was retouched as far as seen
``camera_original``       make and model are there, and nothing but (at most) the camera's firmware names itself
``unknown``               everything else; most sites strip what would tell
========================= ===========================================================================================

Source: Kee, Johnson and Farid, "Digital image authentication from JPEG headers", TIFS 6(3), 2011; Adobe XMP
specification part 2 (xmp:CreatorTool, xmpMM:History, crs:*); Adobe Photoshop file formats (image resource 1030).
"""

import re
from typing import Literal

from tasks.exif import Embedded, ExifFacts

EditTier = Literal["camera_original", "developed", "edited", "unknown"]

_CONVERTERS = re.compile(
    r"lightroom|camera raw|capture one|darktable|rawtherapee|dxo|aperture \d|digital photo professional|\bdpp\b|viewnx"
    r"|nx studio|capture nx|silkypix|photo ninja|iridient|ufraw|on1|exposure x",
    re.IGNORECASE,
)
_EDITORS = re.compile(
    r"photoshop|gimp|snapseed|luminar|vsco|picasa|affinity|facetune|paint|pixelmator|acorn|acdsee|acd systems|corel"
    r"|photoscape|photofiltre|photoimpact|pixlr|fotor|picsart|meitu|instagram|nik collection|topaz|photomatix"
    r"|aurora hdr|krita|imagemagick|irfanview|polarr|prisma|beautyplus|remini|photo editor|picture manager|photos \d",
    re.IGNORECASE,
)
# What cameras and telephones write as Software: a version number, alone or after "Ver" or the model's name, or the
# name of a build in capitals (M7500BSAAAAAAD3050).
_FIRMWARE = re.compile(
    r"(?i:(?:hdr\+ |ios |android |firmware )?(?:ver(?:sion)?\.? ?|v\.? ?)?\d[\d.]*\w*"
    r"|.*\bver(?:sion)?\.? ?\d[\d.]*|.*[ \w]v ?\d+\.\d[\d.]*)|[A-Z][A-Z\d]*\d[A-Z\d]*(?:[-_.][A-Z\d]+)*"
)
_TOOL = re.compile(rb"CreatorTool(?:>|\s*=\s*[\"'])\s*([^<\"'\s][^<\"']{0,200})")
_AGENT = re.compile(rb"softwareAgent(?:>|\s*=\s*[\"'])\s*([^<\"'\s][^<\"']{0,200})")
_JPEG_QUALITY = b"8BIM\x04\x06"  # resource 1030: only Photoshop's own JPEG writer leaves it


def edit_facts(image_format: str, facts: ExifFacts, blocks: Embedded) -> tuple[EditTier, list[str]]:
    """The tier, and the evidence as ``kind:detail`` in a fixed order; the strongest evidence decides."""
    named = _named_programs(facts, blocks)
    signs = [_sign(kind, name, facts.model) for kind, name in named]
    if b"crs:HasSettings" in blocks.xmp or b"crs:RawFileName" in blocks.xmp:
        signs.append(("developed", "xmp_camera_raw:crs"))
    if image_format != "JPEG":
        signs.append(("unknown", f"no_camera_format:{image_format}"))
    if b"DerivedFrom" in blocks.xmp:
        signs.append(("unknown", "xmp_derived:DerivedFrom"))
    if _JPEG_QUALITY in blocks.photoshop:
        signs.append(("edited", "photoshop_resources:1030"))
    if blocks.is_saved_for_web:
        signs.append(("edited", "saved_for_web:Ducky"))
    return _tier(facts, {tier for tier, _ in signs}), list(dict.fromkeys(text for _, text in signs))


def _named_programs(facts: ExifFacts, blocks: Embedded) -> list[tuple[str, str]]:
    """(where, name) of each program that names itself."""
    named = [] if facts.software is None else [("software", facts.software)]
    for kind, pattern in (("xmp_tool", _TOOL), ("xmp_history", _AGENT)):
        named += [(kind, match.decode("utf-8", "replace").strip()) for match in pattern.findall(blocks.xmp)]
    return named


def _sign(kind: str, name: str, model: str | None) -> tuple[str, str]:
    """(tier that it speaks for, evidence) of a program called ``name`` in a file of the camera ``model``."""
    if _CONVERTERS.search(name):
        return "developed", f"{kind}:{name}"
    if _EDITORS.search(name):
        return "edited", f"{kind}:{name}"
    if name == model or _FIRMWARE.fullmatch(name):
        return "firmware", f"firmware:{name}"
    return "unknown", f"{kind}:{name}"


def _tier(facts: ExifFacts, spoken_for: set[str]) -> EditTier:
    if "edited" in spoken_for:
        return "edited"
    if "developed" in spoken_for:
        return "developed"
    if facts.make and facts.model and "unknown" not in spoken_for:
        return "camera_original"
    return "unknown"
