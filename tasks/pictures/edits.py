"""Whether a photo was edited after the camera wrote it: a tier, and all the evidence for it.

Each sign says one of these:

========== ===========================================================================================================
edited     a program that changes pixels left its name, or a block that only such programs write
developed  a raw converter made it: exposure and colour were chosen
cut        the picture has another shape than the one that EXIF, or the embedded thumbnail, remembers
rewritten  not the file that the camera wrote: resized, saved later or by a library, no JPEG, without its maker's note
noted      kept as evidence, decides nothing alone: the tables of libjpeg (some cameras have them), tags of Windows
========== ===========================================================================================================

The rule of decision, the first that holds:

1. ``edited``: a sign says so; or one says ``cut`` and another one that a program wrote the file (``rewritten``, or the
   tables of libjpeg): pixels are gone, and not by the camera's hand.
2. ``developed``: a sign says so.
3. ``camera_original``: make and model are there, and no sign says ``cut`` or ``rewritten``.
4. ``unknown``: everything else; most sites strip what would tell. So ``cut`` or ``rewritten`` alone takes from a
   camera's file its claim to be an original, and proves no retouching.

Source: Kee, Johnson and Farid, "Digital image authentication from JPEG headers", TIFS 6(3), 2011 (tables, sizes and
thumbnails as signatures); Adobe XMP specification parts 1 and 2 (xmp:CreatorTool, xmpMM:History, crs:*, photoshop:*);
Adobe Photoshop file formats (image resources 1030 and 1057); C2PA specification 2.2, section 18 (actions); JEITA
CP-3461 (DCF 2.0: EXIF comes first, thumbnails are 160 x 120 with bars).
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg

from tasks.pictures import programs, quantisation
from tasks.pictures.containers import Blocks, blocks_of
from tasks.pictures.exif import ExifFacts

EditTier = Literal["camera_original", "developed", "edited", "unknown"]
Size = tuple[int, int]

_TOOL = re.compile(rb"CreatorTool(?:>|\s*=\s*[\"'])\s*([^<\"'\s][^<\"']{0,200})")
_AGENT = re.compile(rb"softwareAgent(?:>|\s*=\s*[\"'])\s*([^<\"'\s][^<\"']{0,200})")
_ACTION = re.compile(rb"stEvt:action(?:>|\s*=\s*[\"'])\s*(\w{1,40})")
_SLIDER = re.compile(rb"crs:(\w+?)(?:2012)?(?:>|\s*=\s*[\"'])\s*([+-]?\d+(?:\.\d+)?)")
_CHOSEN = {
    b"Exposure", b"Contrast", b"Highlights", b"Shadows", b"Whites", b"Blacks", b"Clarity", b"Dehaze", b"Vibrance",
    b"Saturation", b"Brightness", b"Texture", b"PostCropVignetteAmount", b"GrainAmount",
}  # fmt: skip
_RETOUCHED = re.compile(
    rb"crs:(RetouchInfo|RetouchAreas|PaintBasedCorrections|GradientBasedCorrections|CircularGradientBasedCorrections"
    rb"|MaskGroupBasedCorrections)\b(?!\s*/>)"
)
_PHOTOSHOP = re.compile(rb"photoshop:(History|TextLayers|DocumentAncestors)\b")
_PHOTOSHOP_ONLY = {b"8BIM\x04\x06": "1030", b"8BIM\x04\x21": "1057"}  # quality of its JPEG writer; version info
_C2PA_EDITS = re.compile(
    rb"c2pa\.(edited|color_adjustments|cropped|drawing|filtered|placed|removed|repackaged|resized|trimmed)\b"
    rb"|(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)"
)
# Makers whose cameras never leave out their own block: without it, another program wrote the EXIF anew.
_ALWAYS_NOTED = re.compile(
    r"canon|nikon|olympus|panasonic|pentax|fujifilm|casio|minolta|sony (?:dsc|dslr|slt|ilce|nex)", re.IGNORECASE
)
_LATER_S = 600  # cameras note when the file was written: some seconds after the shutter, minutes after a long exposure
_DCF_THUMBNAILS = {(160, 120), (120, 160)}
_BLOCK_PX = 8  # programs round the sides of thumbnails to blocks
_BLACK = 32  # of 255, on the average of a bar


class Sign(NamedTuple):
    """One piece of evidence: what it says (see above), and its words as ``kind:detail``."""

    says: Literal["edited", "developed", "cut", "rewritten", "noted"]
    words: str


def edit_facts(image_format: str, facts: ExifFacts, blocks: Blocks, size: Size | None) -> tuple[EditTier, list[str]]:
    """The tier, and the evidence in a fixed order. ``size``: (width, height) as stored; None if not known."""
    signs = list(dict.fromkeys(_signs(facts, blocks, size or facts.noted_size)))
    if image_format != "JPEG":
        signs.append(Sign("rewritten", f"no_camera_format:{image_format}"))
    return _tier(facts, signs), [sign.words for sign in signs]


def _tier(facts: ExifFacts, signs: list[Sign]) -> EditTier:
    said = {sign.says for sign in signs}
    is_by_program = "rewritten" in said or any(sign.words.startswith("ijg_tables") for sign in signs)
    if "edited" in said or ("cut" in said and is_by_program):
        return "edited"
    if "developed" in said:
        return "developed"
    return "camera_original" if facts.make and facts.model and not said & {"cut", "rewritten"} else "unknown"


def _signs(facts: ExifFacts, blocks: Blocks, size: Size | None) -> Iterator[Sign]:
    yield from _names(facts, blocks)
    yield from _xmp(blocks.xmp)
    yield from _other_blocks(blocks)
    yield from _tables(facts, blocks)
    yield from _exif(facts, blocks)
    if size is not None:
        yield from _sizes(facts, size)


def _names(facts: ExifFacts, blocks: Blocks) -> Iterator[Sign]:
    """Programs that name themselves."""
    named = [("software", facts.software), ("processing", facts.processing_software)]
    for kind, pattern in (("xmp_tool", _TOOL), ("xmp_history", _AGENT)):
        named += [(kind, match.decode("utf-8", "replace").strip()) for match in pattern.findall(blocks.xmp)]
    for kind, name in named:
        if name:
            program = programs.kind_of(name, facts.make, facts.model)
            if program == "firmware":
                yield Sign("noted", f"firmware:{name}")
            else:
                yield Sign("rewritten" if program == "unlisted" else program, f"{kind}:{name}")
    comment = blocks.joined("comment")
    speaker = programs.kind_of_comment(comment)
    if speaker is not None:
        words = "".join(letter for letter in comment.decode("utf-8", "replace") if letter.isprintable())[:80]
        yield Sign("rewritten" if speaker == "unlisted" else speaker, f"comment:{words}")


def _xmp(xmp: bytes) -> Iterator[Sign]:
    """What XMP tells beside names of programs."""
    if not _AGENT.search(xmp):
        for action in dict.fromkeys(_ACTION.findall(xmp)):
            yield Sign("rewritten", f"xmp_action:{action.decode()}")
    if b"DerivedFrom" in xmp:
        yield Sign("rewritten", "xmp_derived:DerivedFrom")
    for name in dict.fromkeys(_PHOTOSHOP.findall(xmp)):
        yield Sign("edited", f"xmp_photoshop:{name.decode()}")
    if b"photoshop:ColorMode" in xmp:
        yield Sign("rewritten", "xmp_photoshop:ColorMode")
    if b"crs:HasSettings" in xmp or b"crs:RawFileName" in xmp:
        moved = {name for name, value in _SLIDER.findall(xmp) if name in _CHOSEN and float(value) != 0}
        yield Sign("developed", f"camera_raw:{len(moved)} sliders" if moved else "camera_raw:neutral")
    for name in dict.fromkeys(_RETOUCHED.findall(xmp)):
        yield Sign("edited", f"camera_raw_retouch:{name.decode()}")


def _other_blocks(blocks: Blocks) -> Iterator[Sign]:
    """Photoshop's resources, its export for the web, and signed provenance."""
    resources = blocks.joined("photoshop")
    for start, name in _PHOTOSHOP_ONLY.items():
        if start in resources:
            yield Sign("edited", f"photoshop_resources:{name}")
    if "saved_for_web" in blocks:
        yield Sign("edited", "saved_for_web:Ducky")
    if "provenance" in blocks:
        actions = [b"".join(found).decode() for found in _C2PA_EDITS.findall(blocks.joined("provenance"))]
        yield from (Sign("edited", f"c2pa:{action}") for action in dict.fromkeys(actions))
        if not actions:
            yield Sign("noted", "c2pa:no edits")


def _tables(facts: ExifFacts, blocks: Blocks) -> Iterator[Sign]:
    """How the JPEG is encoded, against how cameras encode."""
    tables = quantisation.read_tables(blocks.joined("tables"))
    quality, preset = quantisation.ijg_quality(tables), quantisation.photoshop_quality(tables)
    if quality is not None:
        yield Sign("noted", f"ijg_tables:{quality}")
    if preset is not None:
        yield Sign("rewritten", f"photoshop_tables:{preset}")
    if blocks.is_progressive and facts.make:
        yield Sign("rewritten", "progressive:no camera writes it")
    jfif, exif = blocks.first("jfif"), blocks.first("exif")
    if facts.make and jfif and exif and jfif < exif:
        yield Sign("rewritten", "jfif:before EXIF")


def _exif(facts: ExifFacts, blocks: Blocks) -> Iterator[Sign]:
    """What EXIF tells beside names and sizes."""
    if facts.modified_after_s is not None and facts.modified_after_s > _LATER_S:
        yield Sign("rewritten", f"modified_later:{facts.modified_after_s // 60} min")
    if facts.make and not facts.has_maker_note:
        is_lost = _ALWAYS_NOTED.match(f"{facts.make} {facts.model}") is not None
        yield Sign("rewritten" if is_lost else "noted", f"no_maker_note:{facts.make}")
    if facts.is_windows_tagged:
        yield Sign("noted", "windows_tags:0xEA1C")


def _sizes(facts: ExifFacts, size: Size) -> Iterator[Sign]:
    """What EXIF and the thumbnail remember, against the ``size`` of the picture."""
    if facts.noted_size is not None and sorted(facts.noted_size) != sorted(size):
        is_cut = _shapes_differ(facts.noted_size, size, 1)
        words = f"{facts.noted_size[0]}x{facts.noted_size[1]} to {size[0]}x{size[1]}"
        yield Sign("cut", f"cut:{words}") if is_cut else Sign("rewritten", f"resized:{words}")
    shown = blocks_of(facts.thumbnail).size
    if shown is None:
        return
    if shown in _DCF_THUMBNAILS and _has_bars(facts.thumbnail, size):
        return
    if (shown[0] - shown[1]) * (size[0] - size[1]) < 0:
        yield Sign("rewritten", f"turned:thumbnail {shown[0]}x{shown[1]}")
    if _shapes_differ(shown, size, _BLOCK_PX):
        yield Sign("cut", f"thumbnail:{shown[0]}x{shown[1]}")


def _shapes_differ(first: Size, second: Size, rounded_px: int) -> bool:
    """Whether two sizes are of different shapes, whichever way they lie.

    Not if 1.5 % explain it, or sides of the ``first`` that were rounded by up to so many pixels.
    """
    (first_short, first_long), (second_short, second_long) = sorted(first), sorted(second)
    tolerance = max(0.015, rounded_px / first_short + 1 / second_short)
    return abs(first_long * second_short / (second_long * first_short) - 1) > tolerance


def _has_bars(thumbnail: bytes, size: Size) -> bool:
    """Whether a thumbnail of 4:3 has the black bars that a picture of this size needs in it."""
    try:
        grey = simplejpeg.decode_jpeg(thumbnail, "GRAY", strict=False)[:, :, 0]
    except ValueError:
        return True  # who knows
    height, width = grey.shape
    top = (height - width * size[1] // size[0]) // 2 - 2  # two rows less: bars are rounded to blocks, and edges ring
    left = (width - height * size[0] // size[1]) // 2 - 2
    if max(top, left) <= 0:
        return False
    bars = (grey[:top], grey[height - top :]) if top > 0 else (grey[:, :left], grey[:, width - left :])
    return all(float(np.mean(bar)) < _BLACK for bar in bars)
