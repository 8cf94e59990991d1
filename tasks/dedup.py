"""Group pictures that are the same, whatever was done to them since, and keep one of each group.

Equal bytes are duplicates; so are photos whose thumbnails can be laid over each other (``tasks.duplicates``). A flat
picture is a duplicate of equal bytes only. Of each group one photo is kept: one that a person wants kept, then the one
with most pixels, then a camera's own file before a developed or edited one, then the earliest by key.

Source: ``tests/bench/duplicates.py``, which measures what is found again and what is confused.
"""

import logging
from collections import Counter

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from pydantic import BaseModel, ConfigDict, Field

from storage import manifest, streaming
from storage.layout import layout
from storage.records import SCHEMAS, ManifestRef
from tasks import caching
from tasks.duplicates.candidates import Indices
from tasks.duplicates.copies import Photos, bytes_of, equal_bytes, equal_pictures, photos_of
from tasks.duplicates.groups import Forest

__all__ = ["DedupRules", "Photos", "dedup", "dedup_rows", "equal_pictures", "photos_of"]

LOG = logging.getLogger(__name__)
_BATCH_ROWS = 50_000
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


def representatives(table: pa.Table, roots: Indices) -> Indices:
    """For each photo the one that stands for its group. ``table``: decision, long_px, short_px, edit_tier, by key."""
    is_kept = pc.fill_null(pc.equal(table["decision"], "keep"), False).to_numpy()
    pixels = pc.multiply(table["long_px"].cast(pa.int64()), table["short_px"].cast(pa.int64())).to_numpy()
    tiers = pc.fill_null(pc.index_in(table["edit_tier"], pa.array(TIERS)), len(TIERS)).to_numpy()
    order = np.lexsort((np.arange(len(roots)), tiers, -pixels, ~is_kept, roots))
    best = np.empty(len(roots), np.intp)
    best[roots[order[::-1]]] = order[::-1]  # what is written last, the first of its group, stays
    return np.asarray(best[roots])


def distances(hashes: npt.NDArray[np.uint64], members: Indices, best: Indices) -> npt.NDArray[np.int16]:
    """Bits in which each of ``members`` differs from the one that stands for it, in its nearest orientation.

    ``hashes``: photo x 8 orientations x 4 words.
    """
    differences = hashes[members] ^ hashes[best[members], :1]
    bits = np.bitwise_count(differences).sum(axis=2, dtype=np.int16)
    return np.asarray(bits.min(axis=1, initial=256))


_LIMIT = """
    SELECT place FROM (
        SELECT place, is_kept, row_number() OVER (
            PARTITION BY source, owner_id ORDER BY is_kept DESC, sha256(source || '/' || photo_id), photo_id
        ) AS rank FROM offered WHERE owner_id <> '')
    WHERE rank > $most AND NOT is_kept
    ORDER BY place
"""


def over_limit(table: pa.Table, offered: npt.NDArray[np.bool_], max_per_owner: int) -> Indices:
    """Places of the ``offered`` photos beyond the first ``max_per_owner`` of their owner, ordered by a hash of the key.

    Those that a person wants kept come first and are never beyond.
    """
    columns = table.select(["source", "photo_id", "owner_id"])
    columns = columns.append_column("place", pa.array(np.arange(table.num_rows)))
    columns = columns.append_column("is_kept", pc.fill_null(pc.equal(table["decision"], "keep"), False))
    with duckdb.connect() as database:
        database.register("offered", columns.filter(pa.array(offered)))
        found = database.sql(_LIMIT, params={"most": max_per_owner}).to_arrow_table()
    return np.asarray(found["place"].to_numpy())


def dedup_rows(table: pa.Table, photos: Photos, rules: DedupRules) -> pa.Table:
    """The dedup columns of each photo of ``table``, which has the columns of ``taking_part``, in the same order."""
    size = table.num_rows
    best = representatives(table, groups(photos, rules.max_distance_bits))
    is_member = best != np.arange(size)
    is_grouped = is_member.copy()
    is_grouped[best[is_member]] = True
    is_kept = pc.fill_null(pc.equal(table["decision"], "keep"), False).to_numpy()
    reasons = np.where(is_member & ~is_kept, 1, 0)
    if rules.max_per_owner is not None:
        reasons[over_limit(table, reasons == 0, rules.max_per_owner)] = 2
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
    return pa.table(columns, schema=SCHEMAS["dedup"])


_TAKING_PART = """
    SELECT source, photo_id, sha256, long_px, short_px, edit_tier, phash_orientations, phash_probes,
           coalesce(owner_id, '') AS owner_id, decision
    FROM measured JOIN judged USING (source, photo_id)
        LEFT JOIN owners USING (source, photo_id) LEFT JOIN decided USING (source, photo_id)
    WHERE measure_reason IS NULL AND filter_reason IS NULL
    ORDER BY source, photo_id
"""
_THUMBNAILS = "SELECT place, thumbnail FROM measured JOIN chosen USING (source, photo_id)"


def taking_part(database: duckdb.DuckDBPyConnection) -> tuple[pa.Table, npt.NDArray[np.uint8]]:
    """The rows that measure and filter keep, by photo key, with owner (or empty) and decision; their thumbnails.

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


@task(**caching.stage("dedup"))
def dedup(
    measured: list[ManifestRef], filtered: ManifestRef, owners: ManifestRef, decided: ManifestRef, rules: DedupRules
) -> ManifestRef:
    """Duplicate groups and reasons for every photo that measure and filter keep."""
    where = layout()
    with streaming.database(where, measured=measured, judged=filtered, owners=owners, decided=decided) as database:
        table, thumbnails = taking_part(database)
    rows = dedup_rows(table, photos_of(table, thumbnails), rules)
    counts = Counter(reason or "kept" for reason in rows["dedup_reason"].to_pylist())
    LOG.info("dedup: %s", " ".join(f"{reason}={count}" for reason, count in sorted(counts.items())))
    return manifest.write(where, "dedup", rows)
