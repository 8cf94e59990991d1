"""Decode the photos of a snapshot once, to what training needs: upright uint8 frames of one size, a file a split.

A recipe may want more than photos that are squeezed to its frame: see ``odd_pictures``. The folder that results is what
``models/loader.py`` reads; its format is described there.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task

from models.frames import PackSpec, Picture
from storage import blobs, manifest, removals
from storage.layout import Layout, drafting, layout
from storage.records import SPLITS, ManifestRef, PackRef
from tasks import caching
from tasks.errors import TooFewPhotos
from tasks.pictures import imaging, odd_pictures
from tasks.pictures.imaging import Pixels

MIN_PHOTOS = {"train": 32, "val": 8, "test": 8}
THREADS = max(2, os.cpu_count() or 2)
READ_AHEAD = 64  # decoded frames held in memory at a time
DRAWN: dict[Picture, Callable[[Pixels], Pixels]] = {
    "photo": lambda pixels: pixels,
    "no_background": odd_pictures.without_background,
    "contours": odd_pictures.contours,
}
LOG = logging.getLogger(__name__)


def check_enough(counts: dict[str, int], what: str) -> None:
    """Raise TooFewPhotos unless every split has the photos that training and an honest evaluation need."""
    short = {split: least for split, least in MIN_PHOTOS.items() if counts.get(split, 0) < least}
    if short:
        have = ", ".join(f"{counts.get(split, 0):,} in {split}" for split in SPLITS)
        need = ", ".join(f"{least:,} in {split}" for split, least in short.items())
        raise TooFewPhotos(
            f"{what} has {have}: too few to train on, which takes at least {need}. "
            "Widen its queries or its filter, refresh, and train again"
        )


def frame(where: Layout, row: dict[str, Any], spec: PackSpec) -> Pixels:
    """The photo of ``row`` (blob, format, net_op), upright, in a frame of (frame_height, frame_width, 3) RGB."""
    data = blobs.get(where, row["blob"], row["format"])
    size = imaging.upright_size(*imaging.stored_size(data), row["net_op"])
    height, width = odd_pictures.inner_size(*size, spec.frame_height, spec.frame_width, spec.pad_beyond)
    pixels = imaging.decode_upright(data, row["net_op"], min_height=height, min_width=width)
    drawn = DRAWN[spec.picture](imaging.resize_area(pixels, height, width))
    return odd_pictures.pad(drawn, spec.frame_height, spec.frame_width)


@task(**caching.stage("pack"))
def pack(
    selection: ManifestRef,
    frame_height: int,
    frame_width: int,
    pad_beyond: float | None = None,
    picture: Picture = "photo",
) -> PackRef:
    """Frames of all photos of ``selection``, as uint8 (photos, frame_height, frame_width, 3) by split.

    ``pad_beyond`` and ``picture``: see ``models.frames.PackSpec``. Raises RemovedPhoto for a selection that holds a
    photo which was removed.
    """
    where = layout()
    spec = PackSpec(frame_height, frame_width, pad_beyond, picture)
    digest = caching.digest("pack", {"selection": selection, **asdict(spec)})
    folder = where.pack(digest)
    with drafting(folder.parent) as draft:
        draft.mkdir()
        rows = manifest.read(where, selection)
        removals.refuse(where, rows, "what is to be packed")
        splits: dict[str, Any] = {split: _write_split(where, draft, split, rows, spec) for split in SPLITS}
        card = {"version": 1, **asdict(spec), "splits": splits}
        (draft / "pack.json").write_text(json.dumps(card, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, or the cache would have served it
        os.rename(draft, folder)
    photos = {split: facts["photos"] for split, facts in splits.items()}
    LOG.info("packed %s as %s", " ".join(f"{split}={n}" for split, n in photos.items()), spec)
    return pack_ref(folder, digest, photos)


def pack_ref(folder: Path, digest: str, photos: dict[str, int]) -> PackRef:
    """A reference to the pack in ``folder``."""
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return PackRef(
        digest=digest, sha256=manifest.sha256_file(folder / "pack.json"), size_bytes=size_bytes, photos=photos
    )


def check_allowed(where: Layout, folder: Path) -> None:
    """Raise RemovedPhoto if the pack in ``folder``, come from wherever, holds a photo that was removed."""
    for rows in sorted(folder.glob("*.parquet")):
        removals.refuse(where, manifest.read_file(rows), f"the pack {str(folder)!r}")


def _write_split(where: Layout, folder: Path, split: str, rows: pa.Table, spec: PackSpec) -> dict[str, Any]:
    """Write ``<split>.npy`` and ``<split>.parquet`` of frames; their entry of pack.json."""
    chosen = rows.filter(pc.equal(rows["split"], split))
    frames_file, rows_file = folder / f"{split}.npy", folder / f"{split}.parquet"
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (chosen.num_rows, spec.frame_height, spec.frame_width, 3),
    }
    with frames_file.open("wb") as stream:  # a memory map on a full disk is a bus error, no exception
        np.lib.format.write_array_header_1_0(stream, header)
        for pixels in _frames(where, chosen, spec):
            stream.write(pixels.tobytes())
    pq.write_table(chosen.select(["source", "photo_id", "owner_id"]).replace_schema_metadata(None), rows_file)
    return {
        "photos": chosen.num_rows, "frames": frames_file.name, "rows": rows_file.name,
        "frames_sha256": manifest.sha256_file(frames_file), "rows_sha256": manifest.sha256_file(rows_file),
    }  # fmt: skip


def _frames(where: Layout, rows: pa.Table, spec: PackSpec) -> Iterator[Pixels]:
    """The frames of ``rows`` in order, decoded on threads, READ_AHEAD at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, rows.num_rows, READ_AHEAD):
            batch = rows.slice(start, READ_AHEAD).to_pylist()
            yield from pool.map(lambda row: frame(where, row, spec), batch)
