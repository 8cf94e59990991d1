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
    r"|firefly|midjourney|dall-e|stable diffusion",
    re.IGNORECASE,
)
# What cameras and telephones write as Software: a version number, alone or after "Ver" or the model's name; the name of
# a build in capitals (M7500BSAAAAAAD3050), signed (release-keys) or of Ericsson (prgCXC...); the camera's own program.
_FIRMWARE = re.compile(
    r"(?i:(?:hdr\+ |ios |android |firmware |dvware )?(?:ver(?:sion)?\.? ?|v\.? ?)?\d[\d.]*\w*"
    r"|.*\bver(?:sion)?\.? ?\d[\d.]*|.*[ \w]v ?\d+\.\d[\d.]*|.*(?:release|test)-keys|.*\bprgcxc.*"
    r"|mediatek camera application)"
    r"|[A-Z][A-Z\d]*\d[A-Z\d]*(?:[-_.][A-Z\d]+)*"
)
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
def kind_of(name: str, model: str | None) -> Program:
    """What kind of program writes ``name`` into a file of the camera ``model``."""
    if _CONVERTERS.search(name):
        return "developed"
    if _EDITORS.search(name):
        return "edited"
    is_model = model is not None and name.lower().startswith(model.lower())
    return "firmware" if is_model or _FIRMWARE.fullmatch(name) else "unlisted"


def kind_of_comment(comment: bytes) -> Literal["edited", "unlisted"] | None:
    """Whether a program speaks in the ``comment`` of a JPEG, and which kind; None for the words of people."""
    if _SAYS_EDITED.search(comment):
        return "edited"
    return "unlisted" if _SAYS_WRITTEN.search(comment) else None
