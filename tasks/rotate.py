"""Stand photos upright, and portraits on their side where landscapes are wanted, without loss of a single pixel.

Where an exact turn exists, a new blob is written: a JPEG whose sides are whole blocks turns in the coefficient domain;
a PNG or a lossless WEBP is decoded, turned and encoded again. Elsewhere the blob stays, and ``net_op`` says which
orientation (an EXIF value) a reader must apply to the stored pixels.

A portrait is turned a quarter to the left or to the right by a hash of its key, so that the direction of gravity in the
turned ones does not give them away as such.

Source: ITU-T T.81 A.2.4 (blocks); libjpeg-turbo, ``jpegtran`` (turns of coefficients).
"""

import hashlib
import io
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import turbojpeg
from PIL import Image
from prefect import task

from storage import blobs, manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from tasks import caching, imaging
from tasks.exif import embedded, reset_orientation, upright_exif

LOG = logging.getLogger(__name__)
THREADS = 4
RotateMode = Literal["landscape", "upright", "none"]

_QUARTER_TURNS = {0: 1, 1: 8, 3: 6}  # EXIF value by counter-clockwise quarter turns
_TRANSFORMS = {
    2: turbojpeg.OP.HFLIP, 3: turbojpeg.OP.ROT180, 4: turbojpeg.OP.VFLIP, 5: turbojpeg.OP.TRANSPOSE,
    6: turbojpeg.OP.ROT90, 7: turbojpeg.OP.TRANSVERSE, 8: turbojpeg.OP.ROT270,
}  # fmt: skip
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


class Plan(NamedTuple):
    """``op``: the orientation to apply to the stored pixels; ``landscape_turns``: how much of it is our own doing."""

    op: int
    landscape_turns: int


def plan(width: int, height: int, exif_orientation: int, mode: RotateMode, key: str) -> Plan:
    """How to turn a photo of this size as stored. ``landscape_turns`` are counter-clockwise quarters, as numpy.rot90.

    ``none`` leaves stored pixels as they are, even where EXIF says that they lie on their side. A square is no
    portrait.
    """
    if mode == "none":
        return Plan(1, 0)
    shown_width, shown_height = imaging.upright_size(width, height, exif_orientation)
    if mode == "upright" or shown_height <= shown_width:
        return Plan(exif_orientation, 0)
    turns = 1 if hashlib.sha256(f"landscape\0{key}".encode()).digest()[0] & 1 else 3
    return Plan(imaging.compose(exif_orientation, _QUARTER_TURNS[turns]), turns)


def rotate_exactly(data: bytes, image_format: str, op: int) -> bytes | None:
    """``data`` turned by ``op`` with its EXIF orientation reset to 1; None where no exact turn exists."""
    if embedded(data).has_more_pictures:  # an animation; or pictures behind the first that would be lost
        return None
    if image_format == "JPEG":
        return _rotate_coefficients(data, op)
    if image_format == "PNG" and data[24] <= 8:  # 16 bits per channel do not survive Pillow
        return _encode_again(data, op, {})
    if image_format == "WEBP" and is_lossless_webp(data):
        return _encode_again(data, op, {"lossless": True, "exact": True, "method": 4})
    return None


def is_lossless_webp(data: bytes) -> bool:
    """Whether the pixels of a WEBP file lie in a VP8L chunk."""
    return data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and b"VP8L" in data[30:] and b"VP8 " not in data[30:])


def _rotate_coefficients(data: bytes, op: int) -> bytes | None:
    """A JPEG turned block by block; None if that would leave a partial block inside the picture."""
    try:
        turned: bytes = turbojpeg.transform(
            data, _TRANSFORMS[op], perfect=True, progressive=embedded(data).is_progressive
        )
    except RuntimeError:  # not perfect, or of a kind that only its owner's decoder can read
        return None
    return reset_orientation(turned)


def _encode_again(data: bytes, op: int, options: dict[str, Any]) -> bytes | None:
    """A lossless picture turned pixel by pixel, with its colour profile; None if a pixel would not come back equal."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG" and image.mode not in _PNG_MODES:
            return None
        turned = image.transpose(_TRANSPOSITIONS[op])
        kept = {"icc_profile": image.info.get("icc_profile"), "exif": upright_exif(data)}
        out = io.BytesIO()
        turned.save(out, image.format, **options, **{name: value for name, value in kept.items() if value})
    result = out.getvalue()
    is_equal = np.array_equal(imaging.decode_upright(data, op), imaging.decode_upright(result, 1))
    return result if is_equal else None


def rotate_row(where: Layout, row: dict[str, Any], mode: RotateMode) -> dict[str, Any]:
    """The rotate columns of one measured photo; all null if measure rejected it."""
    key = {"source": row["source"], "photo_id": row["photo_id"]}
    if row["measure_reason"] is not None:
        return key
    op, turns = plan(row["width"], row["height"], row["exif_orientation"], mode, f"{row['source']}/{row['photo_id']}")
    kept = {**key, "blob": row["sha256"], "net_op": op, "landscape_turns": turns}
    if op == 1:
        return kept
    try:
        turned = rotate_exactly(blobs.get(where, row["sha256"], row["format"]), row["format"], op)
    except imaging.BadImage as error:
        return {**key, "rotate_reason": error.reason}
    if turned is None:
        return kept
    return {**kept, "blob": blobs.put(where, turned, row["format"]), "net_op": 1}


@task(**caching.stage("rotate"))
def rotate(measured: ManifestRef, mode: RotateMode) -> ManifestRef:
    """For every photo of ``measured`` the blob to read and the orientation that a reader must still apply."""
    where = layout()
    columns = ["source", "photo_id", "sha256", "format", "width", "height", "exif_orientation", "measure_reason"]
    with ThreadPoolExecutor(THREADS) as pool:
        photos = manifest.read(where, measured, columns).to_pylist()
        rows = list(pool.map(lambda row: rotate_row(where, row, mode), photos))
    pairs = [(photo, row) for photo, row in zip(photos, rows, strict=True) if "blob" in row]
    counts = Counter(_outcome(photo, row) for photo, row in pairs)
    LOG.info("rotate: %s", " ".join(f"{outcome}={count}" for outcome, count in sorted(counts.items())))
    return manifest.write_rows(where, "rotate", rows)


def _outcome(photo: dict[str, Any], row: dict[str, Any]) -> str:
    if row["net_op"] != 1:
        return "turned_when_read"
    return "as_stored" if row["blob"] == photo["sha256"] else "turned_exactly"
