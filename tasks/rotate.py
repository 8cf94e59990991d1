"""Stand photos upright, and portraits on their side where landscapes are wanted, without loss of a single pixel.

Where an exact turn exists, a new blob is written: a JPEG whose sides are whole blocks turns in the coefficient domain;
a PNG or a lossless WEBP is decoded, turned and encoded again. Elsewhere the blob stays, and ``net_op`` says which
orientation (an EXIF value) a reader must apply to the stored pixels. No blob whose ``net_op`` is 1 notes another
orientation in its EXIF, unless nothing was to be turned at all.

A portrait is turned a quarter to the left or to the right by a hash of its key, so that the direction of gravity in the
turned ones does not give them away as such.
"""

import hashlib
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from prefect import task

from storage import blobs, manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from tasks import caching
from tasks.pictures import imaging
from tasks.pictures.lossless import rotate_exactly

LOG = logging.getLogger(__name__)
THREADS = 4
RotateMode = Literal["landscape", "upright", "none"]

_QUARTER_TURNS = {0: 1, 1: 8, 3: 6}  # EXIF value by counter-clockwise quarter turns


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


def rotate_row(where: Layout, row: dict[str, Any], mode: RotateMode) -> dict[str, Any]:
    """The rotate columns of one measured photo; all null if measure rejected it."""
    key = {"source": row["source"], "photo_id": row["photo_id"]}
    if row["measure_reason"] is not None:
        return key
    op, turns = plan(row["width"], row["height"], row["exif_orientation"], mode, f"{row['source']}/{row['photo_id']}")
    kept = {**key, "blob": row["sha256"], "net_op": op, "landscape_turns": turns}
    if op == 1 and (mode == "none" or row["exif_orientation"] == 1):
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
