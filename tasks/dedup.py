"""Group pictures that are the same, whatever was done to them since, and keep the largest of each group.

Candidates are wide: equal bytes, or 256-bit perceptual hashes that are near in any of the eight orientations. Every
candidate is then verified on the thumbnails: their fine structure (what a blur takes away) must correlate. A flat
picture has none, so it is a duplicate of equal bytes only.

Source: ``tests/bench/duplicates.py`` on 225 photographs, a changed copy of each: all are found again after JPEG quality
50, half and quarter size, gamma 1.6, brightness x 1.3, loss of colour, a watermark, turns by 90 and 180 degrees, mirror
and a crop of 2 %; 99 % after a crop of 5 % and a turn by 2 degrees; half after a crop of 10 % or with a frame. No two
different photographs are linked, of 25,200 pairs.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prefect import task
from pydantic import BaseModel, ConfigDict, Field

from storage import manifest
from storage.layout import layout
from storage.records import ManifestRef
from tasks import caching, imaging
from tasks.groups import components

LOG = logging.getLogger(__name__)
MIN_CORRELATION = 0.65
MIN_STRUCTURE = 1.0  # standard deviation of a thumbnail's fine structure, of 255: below lies mostly rounding
_SHIFT_PX = 2  # of 32: how far a crop or a frame may have moved the picture
_MARGIN_PX = 4  # of 32: left out, so that a frame is not taken for the picture
_BLUR_PX = 7
_ROWS, _COLUMNS = 16, 8192  # of one tile of hash comparisons: its arrays stay in the processor's cache
_PAIRS = 2048  # verified at once

Hashes = npt.NDArray[np.uint64]
Structure = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class DedupRules(BaseModel):
    """What counts as the same picture, and how much one owner may give."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Duplicates")

    max_distance_bits: int = Field(
        64, ge=0, le=96, description="Hashes that differ in at most so many of 256 bits are compared closely."
    )
    max_per_owner: int | None = Field(None, ge=1, description="Most photos of one owner; empty sets no limit.")


@dataclass(frozen=True)
class Photos:
    """The photos that take part, by photo key.

    ``hashes``: photo x 8 orientations x 4 words; ``thumbnails``: photo x 32 x 32.
    """

    keys: list[tuple[str, str]]
    owners: list[str]
    sha256: list[str]
    areas: list[int]
    hashes: Hashes
    thumbnails: npt.NDArray[np.uint8]

    def name(self, index: int) -> str:
        """``source/photo_id``."""
        return "/".join(self.keys[index])


def photos_of(table: pa.Table) -> Photos:
    """``table`` (one row per photo, in the order of their keys) as arrays."""
    columns = {name: table[name].to_pylist() for name in table.column_names}
    hashes = np.frombuffer(b"".join(columns["phash_orientations"]), dtype=np.uint64)
    thumbnails = np.frombuffer(b"".join(columns["thumbnail"]), dtype=np.uint8)
    return Photos(
        keys=list(zip(columns["source"], columns["photo_id"], strict=True)),
        owners=columns["owner_id"],
        sha256=columns["sha256"],
        areas=[long * short for long, short in zip(columns["long_px"], columns["short_px"], strict=True)],
        hashes=hashes.reshape(-1, 8, 4),
        thumbnails=thumbnails.reshape(-1, 32, 32),
    )


def near_pairs(hashes: Hashes, max_distance_bits: int) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Batches of (first, second, orientation): ``second`` turned by ``orientation`` is near ``first``, an earlier one.

    ``hashes``: photo x 8 orientations x 4 words.
    """
    size = len(hashes)
    upright = np.ascontiguousarray(hashes[:, 0].T)
    turned = np.ascontiguousarray(hashes.reshape(size * 8, 4).T)
    for row in range(0, size, _ROWS):
        for column in range(row * 8, size * 8, _COLUMNS):
            rows, columns = upright[:, row : row + _ROWS, None], turned[:, None, column : column + _COLUMNS]
            distance = np.zeros((rows.shape[1], columns.shape[2]), dtype=np.uint16)
            for word in range(4):
                distance += np.bitwise_count(rows[word] ^ columns[word])
            first, second = np.nonzero(distance <= max_distance_bits)
            first, (second, orientation) = first + row, np.divmod(second + column, 8)
            later = second > first
            if later.any():
                yield first[later], second[later], orientation[later] + 1


def _blur_matrix(size: int, window: int) -> Structure:
    """A moving mean over ``window`` as a matrix; beyond the edge the last pixel goes on."""
    matrix: Structure = np.zeros((size, size), dtype=np.float32)
    for row in range(size):
        for place in range(row - window // 2, row + window // 2 + 1):
            matrix[row, min(max(place, 0), size - 1)] += 1 / window
    return matrix


def fine_structure(thumbnails: npt.NDArray[np.uint8]) -> Structure:
    """Each thumbnail less its own blur: what is left tells pictures apart, where skies and horizons do not."""
    blur = _blur_matrix(thumbnails.shape[1], _BLUR_PX)
    sharp = thumbnails.astype(np.float32)
    return np.asarray(sharp - blur @ sharp @ blur.T, dtype=np.float32)


def _unit(windows: Structure) -> Structure:
    """Windows as vectors of mean 0 and length 1."""
    flat = windows.reshape(len(windows), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-6), dtype=np.float32)


def correlation(first: Structure, second: Structure) -> npt.NDArray[np.float32]:
    """Normalised cross-correlation of each pair of thumbnails, the best over small shifts."""
    side = first.shape[1] - 2 * _MARGIN_PX
    core = _unit(first[:, _MARGIN_PX : _MARGIN_PX + side, _MARGIN_PX : _MARGIN_PX + side])
    places = range(_MARGIN_PX - _SHIFT_PX, _MARGIN_PX + _SHIFT_PX + 1)
    found = [(core * _unit(second[:, y : y + side, x : x + side])).sum(axis=1) for y, x in product(places, repeat=2)]
    return np.asarray(np.max(found, axis=0), dtype=np.float32)


def verified(structure: Structure, first: Indices, second: Indices, orientation: Indices) -> Iterator[tuple[int, int]]:
    """The candidates whose thumbnails show the same picture."""
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        turned = np.stack([
            imaging.make_upright(structure[index], int(value))
            for index, value in zip(second[part], orientation[part], strict=True)
        ])  # fmt: skip
        is_same = correlation(structure[first[part]], turned) >= MIN_CORRELATION
        yield from zip(first[part][is_same].tolist(), second[part][is_same].tolist(), strict=True)


def equal_bytes(sha256: list[str]) -> list[tuple[int, int]]:
    """Links between photos of the same bytes, each with the next."""
    holders: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(sha256):
        holders[digest].append(index)
    return [link for members in holders.values() for link in pairwise(members)]


def equal_pictures(photos: Photos, max_distance_bits: int) -> Iterator[tuple[int, int]]:
    """Links between photos that show the same picture in different bytes."""
    structure = fine_structure(photos.thumbnails)
    has_structure = structure.std(axis=(1, 2)) >= MIN_STRUCTURE
    _, firsts = np.unique(np.array(photos.sha256, dtype=str), return_index=True)
    chosen = np.sort(firsts[has_structure[firsts]])
    for first, second, orientation in near_pairs(photos.hashes[chosen], max_distance_bits):
        yield from verified(structure, chosen[first], chosen[second], orientation)


def duplicate_groups(photos: Photos, rules: DedupRules) -> list[list[int]]:
    """Groups of two or more, the representative first: the largest area, then the earliest key."""
    links = [*equal_bytes(photos.sha256), *equal_pictures(photos, rules.max_distance_bits)]
    members: dict[int, list[int]] = defaultdict(list)
    for index, root in enumerate(components(len(photos.keys), links)):
        members[root].append(index)
    return [
        sorted(group, key=lambda index: (-photos.areas[index], photos.keys[index]))
        for group in members.values()
        if len(group) > 1
    ]


def over_limit(photos: Photos, kept: Iterable[int], max_per_owner: int) -> set[int]:
    """Those of ``kept`` beyond the first ``max_per_owner`` of their owner, in an order by the hash of the key."""
    of_owner: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in kept:
        if photos.owners[index]:
            of_owner[photos.keys[index][0], photos.owners[index]].append(index)

    def order(index: int) -> bytes:
        return hashlib.sha256(photos.name(index).encode()).digest()

    return {index for group in of_owner.values() for index in sorted(group, key=order)[max_per_owner:]}


def dedup_rows(photos: Photos, rules: DedupRules) -> list[dict[str, Any]]:
    """The dedup columns of each photo."""
    rows: list[dict[str, Any]] = [{"source": source, "photo_id": photo_id} for source, photo_id in photos.keys]
    for representative, *others in duplicate_groups(photos, rules):
        name = photos.name(representative)
        rows[representative]["duplicate_group"] = name
        for index in others:
            distance = np.bitwise_count(photos.hashes[representative, 0] ^ photos.hashes[index]).sum(axis=1).min()
            rows[index] |= {"duplicate_group": name, "duplicate_of": name, "distance_bits": int(distance)}
            rows[index]["dedup_reason"] = "duplicate"
    if rules.max_per_owner is not None:
        kept = [index for index, row in enumerate(rows) if "dedup_reason" not in row]
        for index in over_limit(photos, kept, rules.max_per_owner):
            rows[index]["dedup_reason"] = "owner_limit"
    return rows


_TAKING_PART = """
    SELECT source, photo_id, sha256, long_px, short_px, phash_orientations, thumbnail,
           coalesce(owner_id, '') AS owner_id
    FROM measured JOIN judged USING (source, photo_id) LEFT JOIN owners USING (source, photo_id)
    WHERE measure_reason IS NULL AND filter_reason IS NULL
    ORDER BY source, photo_id
"""


def taking_part(measured: pa.Table, judged: pa.Table, owners: pa.Table) -> pa.Table:
    """The rows that measure and filter keep, with their owner (empty if unknown), by photo key."""
    with duckdb.connect() as database:
        for name, table in (("measured", measured), ("judged", judged), ("owners", owners)):
            database.register(name, table)
        chosen: pa.Table = database.sql(_TAKING_PART).to_arrow_table()
        return chosen


@task(**caching.stage("dedup"))
def dedup(measured: list[ManifestRef], filtered: ManifestRef, owners: ManifestRef, rules: DedupRules) -> ManifestRef:
    """Duplicate groups and reasons for every photo that measure and filter keep."""
    where = layout()
    columns = [
        "source", "photo_id", "sha256", "long_px", "short_px", "phash_orientations", "thumbnail", "measure_reason",
    ]  # fmt: skip
    table = taking_part(
        manifest.read_all(where, measured, columns), manifest.read(where, filtered), manifest.read(where, owners)
    )
    rows = dedup_rows(photos_of(table), rules)
    counts = Counter(row.get("dedup_reason", "kept") for row in rows)
    LOG.info("dedup: %s", " ".join(f"{reason}={count}" for reason, count in sorted(counts.items())))
    return manifest.write_rows(where, "dedup", rows)
