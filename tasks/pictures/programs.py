"""What the programs that write picture files call themselves: raw converters, editors, and the firmware of cameras.

A name that is in none of the lists belongs to a viewer, an organiser or a library: it wrote the file, and may or may
not have changed the pixels.

Source: the Software tags of cameras as their makers write them; the EXIF tag names of ExifTool for the rest.
"""

import re
from functools import lru_cache
from typing import Literal

Program = Literal["developed", "edited", "firmware", "unlisted"]

_CONVERTERS = re.compile(
    r"lightroom|camera raw|capture one|darktable|rawtherapee|dxo|aperture \d|digital photo professional|\bdpp\b|viewnx"
    r"|nx studio|capture nx|silkypix|photo ninja|iridient|ufraw|on1|exposure x",
    re.IGNORECASE,
)
_EDITORS = re.compile(
    r"photoshop|gimp|snapseed|luminar|vsco|picasa|affinity|facetune|paint|pixelmator|acorn|acdsee|acd systems|corel"
    r"|photoscape|photofiltre|photoimpact|pixlr|fotor|picsart|meitu|instagram|nik collection|topaz|photomatix"
    r"|aurora hdr|krita|imagemagick|irfanview|polarr|prisma|beautyplus|remini|photo editor|picture manager|photos \d"
    r"|firefly|midjourney|dall-e|stable diffusion|portrait ?pro|photodirector|neat image|noiseware|beautycam|zoner"
    r"|ulead|photo ?studio|photo express|canva|perfectly clear|fotosketcher|\bb612\b|helicon|ptgui|hugin|photostitch",
    re.IGNORECASE,
)
# Names of firmware are compared in small letters without blanks: a version alone, after a camera's name, or a build.
_VERSION = r"(?:firmware)?(?:ver(?:sion)?|v)?\.?\d+(?:(?:\.\d+)+[a-z]{0,2})?"
_FIRMWARE = re.compile(rf"{_VERSION}|dvware\d[\d.]*|mediatekcameraapplication|[\w-]+-(?:user|userdebug|eng)\d.*-keys")
_AFTER_MODEL = re.compile(rf"(?:{_VERSION}(?:\(\w+\))?|[-_][\w.-]+)?")  # COOLPIX L3v1.2, GU295-MSM1530032L-V10i
# Builds say nothing of who wrote them, so each counts in files of its own makers only.
_BUILDS = [(re.compile(makers), re.compile(builds)) for makers, builds in (
    (r"apple", r"(?:iphone|i|ipad)os\d+(?:\.\d+)*"),
    (r"google|.*nexus", r"(?:hdr\+|android)[a-z\d][a-z\d.]*"),
    (r"samsung", r"[a-z]\d{3,4}[a-z][a-z\d]{4,10}|m\d{4}s-\d{4}"),  # G991BXXU3AUE1; of Techwin M5011S-1031
    (r"sonyericsson", r".*prgcxc\d.*"),
    (r"sony", r"\d+\.\d+\.[a-z]\.\d+\.\d+(?:_\w+)?"),
    (r"htc|lg|pantech", r"m(?:sm)?\d{4}[a-z][a-z\d]*(?:-[a-z\d.]+)*|v\d\d[a-z]"),  # Qualcomm's: M7500BSAAAAAAD3050
    (r"polaroid", r"[a-z]\d{3}_ct\d{3}"),
    (r"gopro", r"hd?\d+(?:\.\d+){3,}"),
)]  # fmt: skip
# A comment in a JPEG is anybody's words, so only the phrases of programs themselves count.
_SAYS_EDITED = re.compile(
    rb"created with (?:the )?gimp|file (?:written|created) by adobe|edited (?:with|by|in)|imagemagick", re.IGNORECASE
)
_SAYS_WRITTEN = re.compile(
    rb"creator: (?:gd|xv|php)|gd-jpeg|lavc\d|applemark|lead technologies|intel\(r\) jpeg|acd systems|jpegmini|"
    rb"handmade software|compressed by|optimi[sz]ed by",
    re.IGNORECASE,
)


@lru_cache(4096)
def kind_of(name: str, make: str | None, model: str | None) -> Program:
    """What kind of program writes ``name`` into a file of that camera."""
    if _CONVERTERS.search(name):
        return "developed"
    if _EDITORS.search(name):
        return "edited"
    return "firmware" if _is_firmware(_compact(name), make or "", model or "") else "unlisted"


def _is_firmware(name: str, make: str, model: str) -> bool:
    """Whether the compact ``name`` is a version, or one that this camera's maker gives."""
    camera = _compact(make + model)
    if any(makers.match(camera) and builds.fullmatch(name) for makers, builds in _BUILDS):
        return True
    brand = _compact(make.partition(" ")[0])
    own = _compact(model).removeprefix(brand)
    rest = name.removeprefix("digitalcamera").removeprefix(_compact(make)).removeprefix(brand)
    if own and rest.startswith(own) and _AFTER_MODEL.fullmatch(rest, len(own)):
        return True
    return _FIRMWARE.fullmatch(rest) is not None


def _compact(name: str) -> str:
    return "".join(name.split()).lower()


def kind_of_comment(comment: bytes) -> Literal["edited", "unlisted"] | None:
    """Whether a program speaks in the ``comment`` of a JPEG, and which kind; None for the words of people."""
    if _SAYS_EDITED.search(comment):
        return "edited"
    return "unlisted" if _SAYS_WRITTEN.search(comment) else None
