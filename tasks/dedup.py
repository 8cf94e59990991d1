"""Group pictures that are the same, whatever was done to them since, and keep one of each group.

Equal bytes are duplicates; so are photos whose thumbnails can be laid over each other (``tasks.duplicates``). A flat
picture is a duplicate of equal bytes only. Of each group one photo is kept: one that a person wants kept, then one that
was published before, then the one with most pixels, then a camera's own file before a developed or edited one, then the
earliest by key. If its owner has too many, the next of the group whose owner has room stands in for it.

What was published and is filtered out since stands for nothing, but holds its picture's place: a copy that comes later
is of its group, and so of its split.

Source: ``tests/bench/duplicates.py``, which measures what is found again and what is confused.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import lru_cache

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from pydantic import BaseModel, ConfigDict, Field

from storage import blobs, manifest, streaming
from storage.layout import Layout, layout
from storage.records import SCHEMAS, ManifestRef
from tasks import caching
from tasks.duplicates.candidates import Indices
from tasks.duplicates.copies import Look, Photos, bytes_of, equal_bytes, equal_pictures, photos_of
from tasks.duplicates.groups import Forest
from tasks.pictures import imaging

__all__ = ["DedupRules", "Photos", "dedup", "dedup_rows", "equal_pictures", "photos_of"]

LOG = logging.getLogger(__name__)
_BATCH_ROWS = 50_000
_PICTURES = 256  # that are kept for another look: 10 MB
Mask = npt.NDArray[np.bool_]
TIERS = ["camera_original", "developed", "unknown", "edited"]


class DedupRules(BaseModel):
    """What counts as the same picture, and how much one owner may give."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Duplicates")

    max_distance_bits: int = Field(
        7, ge=0, le=7, description="Sketches that differ in at most so many of 64 bits are compared closely."
    )
    max_per_owner: int | None = Field(None, ge=1, description="Most photos of one owner; empty sets no limit.")


def groups(photos: Photos, max_distance_bits: int) -> Indices:
    """For each photo the first that shows the same picture."""
    forest = Forest(len(photos))
    later, firsts = equal_bytes(photos.sha256)
    forest.join(zip(later.tolist(), firsts.tolist(), strict=True))
    forest.join(equal_pictures(photos, max_distance_bits))
    return forest.roots(np.arange(len(photos)))


def flags(table: pa.Table) -> tuple[Mask, Mask, Mask]:
    """Of each photo whether a person wants it kept, whether it was published before, and whether it is filtered out."""
    is_kept = pc.fill_null(pc.equal(table["decision"], "keep"), False)
    return is_kept.to_numpy(), table["was_published"].to_numpy(), table["is_filtered"].to_numpy()


def preferred(table: pa.Table, roots: Indices) -> Indices:
    """All photos, one group after the other, in the order in which they may stand for it. ``table`` is by key."""
    is_kept, was_published, is_filtered = flags(table)
    pixels = pc.multiply(table["long_px"].cast(pa.int64()), table["short_px"].cast(pa.int64())).to_numpy()
    tiers = pc.fill_null(pc.index_in(table["edit_tier"], pa.array(TIERS)), len(TIERS)).to_numpy()
    return np.lexsort((np.arange(len(roots)), tiers, -pixels, ~was_published, ~is_kept, is_filtered, roots))


def representatives(order: Indices, roots: Indices, is_beyond: Mask) -> Indices:
    """For each photo the one that stands for its group: the first in ``order`` that is not beyond its owner's limit,
    or the first of all if every one is.
    """
    best = np.empty(len(roots), np.intp)
    for chosen in (order, order[~is_beyond[order]]):
        best[roots[chosen[::-1]]] = chosen[::-1]  # what is written last, the first of its group, stays
    return best[roots]


def elect(table: pa.Table, roots: Indices, max_per_owner: int | None) -> tuple[Indices, Mask]:
    """For each photo the one that stands for its group, and which photos are beyond the limit of their owner; what is
    filtered out is beyond any.

    Each group offers its first photo, each owner keeps the first of those offered, and a group that was turned down
    offers its next, until none is: deferred acceptance, whose outcome no order of the offers changes.
    """
    order, places = preferred(table, roots), np.arange(len(roots))
    is_kept, _, is_filtered = flags(table)
    is_beyond = is_filtered.copy()
    best = representatives(order, roots, is_beyond)
    if max_per_owner is None:
        return best, is_beyond
    queue, owners = queued(table)
    while True:
        offered = queue[(((best == places) | is_kept) & ~is_beyond)[queue]]
        owner = owners[offered]
        rank = np.arange(len(offered)) - np.searchsorted(owner, owner)
        refused = offered[(rank >= max_per_owner) & ~is_kept[offered]]
        if not refused.size:
            return best, is_beyond
        is_beyond[refused] = True
        best = representatives(order, roots, is_beyond)


def distances(hashes: npt.NDArray[np.uint64], members: Indices, best: Indices) -> npt.NDArray[np.int16]:
    """Bits in which each of ``members`` differs from the one that stands for it, in its nearest orientation.

    ``hashes``: photo x 8 orientations x 4 words.
    """
    differences = hashes[members] ^ hashes[best[members], :1]
    bits = np.bitwise_count(differences).sum(axis=2, dtype=np.int16)
    return np.asarray(bits.min(axis=1, initial=256))


_QUEUE = """
    SELECT place, dense_rank() OVER (ORDER BY source, owner_id) AS owner
    FROM owned WHERE owner_id <> ''
    ORDER BY owner, is_kept DESC, was_published DESC, sha256(source || '/' || photo_id), photo_id
"""


def queued(table: pa.Table) -> tuple[Indices, Indices]:
    """The photos with an owner, one owner after the other, in the order in which an owner keeps them; and of each photo
    the number of its owner, which rises along it (0 without one).

    Those that a person wants kept come first, then those that were published, then any by a hash of the key.
    """
    is_kept, _, _ = flags(table)
    columns = table.select(["source", "photo_id", "owner_id", "was_published"])
    columns = columns.append_column("place", pa.array(np.arange(table.num_rows)))
    with duckdb.connect() as database:
        database.register("owned", columns.append_column("is_kept", pa.array(is_kept)))
        found = database.sql(_QUEUE).to_arrow_table()
    queue = found["place"].to_numpy()
    owners = np.zeros(table.num_rows, np.int64)
    owners[queue] = found["owner"].to_numpy()
    return queue, owners


def dedup_rows(table: pa.Table, photos: Photos, rules: DedupRules) -> pa.Table:
    """The dedup columns of each photo of ``table`` (columns of ``taking_part``), in the same order; none of photos that
    are filtered out, but of copies of those that are not.
    """
    size = table.num_rows
    best, is_beyond = elect(table, groups(photos, rules.max_distance_bits), rules.max_per_owner)
    is_member = best != np.arange(size)
    is_grouped = is_member.copy()
    is_grouped[best[is_member]] = True
    reasons = np.where(is_member & ~flags(table)[0], 1, 0)
    reasons[is_beyond & ~is_member] = 2
    hashes = bytes_of(table["phash_orientations"])[0].view(np.uint64).reshape(-1, 8, 4)
    bits = np.zeros(size, np.int16)
    members = np.flatnonzero(is_member)
    bits[members] = distances(hashes, members, best)
    columns = {
        "source": table["source"], "photo_id": table["photo_id"],
        "duplicate_group": photos.names.take(pa.array(best, mask=~is_grouped)),
        "duplicate_of": photos.names.take(pa.array(best, mask=~is_member)),
        "distance_bits": pa.array(bits, mask=~is_member),
        "dedup_reason": pa.array(["duplicate", "owner_limit"]).take(pa.array(reasons - 1, mask=reasons == 0)),
    }  # fmt: skip
    return pa.table(columns, schema=SCHEMAS["dedup"]).filter(pa.array(~flags(table)[2][best]))


_TAKING_PART = """
    SELECT source, photo_id, sha256, format, exif_orientation, long_px, short_px, edit_tier, phash_orientations,
           phash_probes,
           coalesce(owner_id, '') AS owner_id, CASE WHEN filter_reason IS NULL THEN decision END AS decision,
           given.photo_id IS NOT NULL AS was_published, filter_reason IS NOT NULL AS is_filtered
    FROM measured JOIN judged USING (source, photo_id) LEFT JOIN owners USING (source, photo_id)
        LEFT JOIN decided USING (source, photo_id) LEFT JOIN given USING (source, photo_id)
    WHERE measure_reason IS NULL AND (filter_reason IS NULL OR given.photo_id IS NOT NULL)
    ORDER BY source, photo_id
"""
_THUMBNAILS = "SELECT place, thumbnail FROM measured JOIN chosen USING (source, photo_id)"


def taking_part(database: duckdb.DuckDBPyConnection) -> tuple[pa.Table, npt.NDArray[np.uint8]]:
    """The rows that measure keeps, and filter or a version before, by photo key, with owner (or empty) and decision;
    their thumbnails.

    The thumbnails (row x bytes) come in pieces and go straight to their places: sorted with the rest they would take
    twice the memory.
    """
    table: pa.Table = database.sql(_TAKING_PART).to_arrow_table()
    places = pa.array(np.arange(table.num_rows))
    database.register("chosen", table.select(["source", "photo_id"]).append_column("place", places))
    thumbnails = np.empty((table.num_rows, 0), np.uint8)
    for batch in database.sql(_THUMBNAILS).to_arrow_reader(_BATCH_ROWS):
        data = bytes_of(pa.chunked_array([batch["thumbnail"]]))[0].reshape(batch.num_rows, -1)
        if not thumbnails.size:
            thumbnails = np.empty((table.num_rows, data.shape[1]), np.uint8)
        thumbnails[batch["place"].to_numpy()] = data
    return table, thumbnails


def looking(where: Layout, table: pa.Table) -> Look:
    """Gets the picture of a row of ``taking_part`` again, as it was measured; raises BlobCorrupt."""

    @lru_cache(_PICTURES)
    def look(at: int) -> imaging.Pixels:
        sha256, image_format, orientation = (
            table[name][at].as_py() for name in ("sha256", "format", "exif_orientation")
        )
        data = blobs.get(where, sha256, image_format)
        return imaging.to_grey(imaging.decode_measured(data, orientation))

    return look


@task(**caching.stage("dedup"))
def dedup(
    measured: list[ManifestRef], filtered: ManifestRef, owners: ManifestRef, decided: ManifestRef, given: ManifestRef,
    rules: DedupRules,
) -> ManifestRef:  # fmt: skip
    """Duplicate groups and reasons for every photo that measure and filter keep, and for those in ``given``, published
    before, that are copies of one.
    """
    where = layout()
    with streaming.database(
        where, measured=measured, judged=filtered, owners=owners, decided=decided, given=given
    ) as database:
        table, thumbnails = taking_part(database)
    rows = dedup_rows(table, photos_of(table, looking(where, table), thumbnails), rules)
    counts = Counter(reason or "kept" for reason in rows["dedup_reason"].to_pylist())
    LOG.info("dedup: %s", " ".join(f"{reason}={count}" for reason, count in sorted(counts.items())))
    return manifest.write(where, "dedup", rows)
