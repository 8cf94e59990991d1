"""The rows that stages hand to each other, and the small references that flows pass around.

Each stage writes the photo key (source, photo_id) and the columns that are its own; ``publish`` joins them.
A reference is small, serialisable and names its bytes by digest, so it is also what a cache key is made of.
"""

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 2  # 2: probes, quantisation, entropy; labels, decisions
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
KEY = [("source", pa.string()), ("photo_id", pa.string())]
MOMENT = pa.timestamp("us", tz="UTC")
RENDITION = pa.struct([("label", pa.string()), ("url", pa.string())])

LISTING = [
    ("query_id", pa.string()), ("observed_at", MOMENT),
    ("owner_id", pa.string()), ("owner_name", pa.string()), ("title", pa.string()), ("tags", pa.list_(pa.string())),
    ("label", pa.string()), ("licence", pa.string()), ("licence_url", pa.string()), ("page_url", pa.string()),
    ("image_url", pa.string()), ("size_label", pa.string()),
    ("listed_width", pa.int32()), ("listed_height", pa.int32()),
    ("uploaded_at", MOMENT), ("taken_at", MOMENT), ("latitude", pa.float64()), ("longitude", pa.float64()),
    ("fallbacks", pa.list_(RENDITION)),  # smaller renditions, largest first, for when image_url is gone
    ("listed_etag", pa.string()),  # of the file as it was listed: another one is another file
    ("is_open", pa.bool_()),  # false: ask the site whether the photo may be downloaded
]  # fmt: skip
DOWNLOAD = [("sha256", pa.string()), ("bytes", pa.int64()), ("format", pa.string()), ("download_reason", pa.string())]
ATTEMPT = [
    ("attempt", pa.int32()), ("fetched_at", MOMENT), ("fetched_url", pa.string()), ("fetched_label", pa.string()),
    ("http_status", pa.int32()), ("etag", pa.string()), ("next_try_at", MOMENT),
]  # fmt: skip
MEASURE = [
    ("width", pa.int32()), ("height", pa.int32()),  # as stored in the file
    ("exif_orientation", pa.int8()), ("long_px", pa.int32()), ("short_px", pa.int32()), ("aspect_milli", pa.int32()),
    ("exif_make", pa.string()), ("exif_model", pa.string()), ("exif_software", pa.string()), ("exif_taken", MOMENT),
    ("edit_tier", pa.string()), ("edit_evidence", pa.list_(pa.string())),
    ("quantisation", pa.string()),  # digest of a JPEG's quantisation tables
    ("ijg_quality", pa.int8()), ("is_progressive", pa.bool_()),  # quality 1..100 if the tables are exactly IJG's
    ("phash", pa.binary(32)), ("phash_orientations", pa.binary(256)),  # the eight hashes by EXIF value 1..8
    ("phash_probes", pa.binary()),  # tasks.pictures.hashing.VIEW: 16 bytes for each part that is hashed; empty if flat
    ("sharpness", pa.float32()), ("brightness", pa.float32()), ("is_grey", pa.bool_()),
    ("entropy", pa.float32()),  # bits of the grey histogram: little is low information
    ("thumbnail", pa.binary(1024)),  # 32 x 32, grey, uint8, upright
    ("measure_reason", pa.string()),
]  # fmt: skip
FILTER = [("filter_reason", pa.string())]
ROTATE = [
    ("blob", pa.string()), ("net_op", pa.int8()), ("landscape_turns", pa.int8()), ("rotate_reason", pa.string()),
]  # fmt: skip
DEDUP = [
    ("duplicate_group", pa.string()), ("duplicate_of", pa.string()), ("distance_bits", pa.int16()),
    ("dedup_reason", pa.string()),
]  # fmt: skip
SPLIT = [("group_id", pa.string()), ("split", pa.string()), ("split_reason", pa.string())]
OWNER = [("owner_id", pa.string())]
DECISION = [("decision", pa.string()), ("relabel", pa.string())]  # a person's: keep or reject; another label
LABELS = [("label", pa.string()), ("labels", pa.list_(pa.string())), ("labels_reason", pa.string())]
VERDICT = [("verdict", pa.bool_()), ("reason", pa.string()), ("reason_stage", pa.string())]

_NO_FACTS = {"query_id", "observed_at", "fallbacks", "listed_etag", "is_open", "label"}
_FACTS = [field for field in LISTING if field[0] not in _NO_FACTS]
LICENCE_NOW = [("licence_now", pa.string())]  # where it is no longer the one under which the file was downloaded
SCHEMAS: dict[str, pa.Schema] = {
    "listings": pa.schema(KEY + LISTING),
    "windows": pa.schema([
        ("source", pa.string()), ("query_id", pa.string()),
        ("uploaded_after", MOMENT), ("uploaded_before", MOMENT),  # the latter not included
        ("asked_at", MOMENT),
        # listed (whole), holey (photos may be missing), divided (into parts with rows of their own), sampled
        ("state", pa.string()),
        ("total", pa.int64()), ("unique", pa.int64()),
        ("lost", pa.int64()),  # of total, which the site counts but does not list
        ("pages", pa.int32()), ("calls", pa.int32()),
    ]),
    "checks": pa.schema([
        *KEY, ("checked_at", MOMENT), ("state", pa.string()), ("proof", pa.string()), ("licence", pa.string()),
        ("licence_url", pa.string()), ("is_download_allowed", pa.bool_()), ("file_status", pa.int32()),
    ]),
    "removals": pa.schema([  # a null is a wildcard: an owner alone blocks all of that owner's photos
        *KEY, ("owner_id", pa.string()), ("sha256", pa.string()), ("reason", pa.string()), ("proof", pa.string()),
        ("removed_at", MOMENT),
    ]),
    "overrides": pa.schema([  # a person's decisions, the latest of its kind counts
        *KEY, ("decision", pa.string()), ("label", pa.string()), ("note", pa.string()), ("decided_by", pa.string()),
        ("decided_at", MOMENT),
    ]),
    "splits": pa.schema([  # which split a photo was published in; ``rules``: digest of the rules that gave it
        *KEY, ("group_id", pa.string()), ("split", pa.string()), ("rules", pa.string()), ("version", pa.int32()),
    ]),
    "known": pa.schema(KEY),
    "attempts": pa.schema(KEY + DOWNLOAD + ATTEMPT),
    "wanted": pa.schema([
        *KEY, ("owner_id", pa.string()), ("is_open", pa.bool_()), ("attempt", pa.int32()),
        ("renditions", pa.list_(RENDITION)),
        # of the file that is held, if one is, and is to be looked at again:
        ("etag", pa.string()), ("sha256", pa.string()), ("format", pa.string()), ("bytes", pa.int64()),
    ]),
    "held": pa.schema([*KEY, ("sha256", pa.string()), ("format", pa.string())]),
    "owners": pa.schema(KEY + OWNER),
    "tagged": pa.schema([*KEY, ("tags", pa.list_(pa.string())), ("label", pa.string())]),
    "decided": pa.schema(KEY + DECISION),
    "given": pa.schema([*KEY, ("group_id", pa.string()), ("split", pa.string())]),
    "labels": pa.schema(KEY + LABELS),
    "facts": pa.schema(KEY + _FACTS + LICENCE_NOW + DOWNLOAD),
    "measure": pa.schema([*KEY, ("sha256", pa.string()), ("format", pa.string()), *MEASURE]),
    "filter": pa.schema(KEY + FILTER),
    "rotate": pa.schema(KEY + ROTATE),
    "dedup": pa.schema(KEY + DEDUP),
    "split": pa.schema(KEY + SPLIT),
    "selection": pa.schema([
        *KEY,
        ("owner_id", pa.string()), ("split", pa.string()), ("blob", pa.string()), ("format", pa.string()),
        ("net_op", pa.int8()),
    ]),
    "photo_labels": pa.schema([*KEY, ("label", pa.string())]),  # what a system learns, apart from the pixels
    "publish": pa.schema(
        KEY + _FACTS + LICENCE_NOW + DOWNLOAD + MEASURE + FILTER + ROTATE + DEDUP + LABELS + SPLIT
        + DECISION + VERDICT
    ),
}  # fmt: skip


class Record(BaseModel):
    """A frozen, serialisable value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestRef(Record):
    """One Parquet file of one stage; ``Layout.stage(stage, sha256)`` is its path."""

    stage: str
    sha256: str
    size_bytes: int
    rows: int


class SnapshotRef(Record):
    """One published version of a dataset. ``counts``: photos by split, and rejected."""

    dataset: str
    version: int
    uri: str
    counts: dict[str, int]
    is_new: bool = True


class QueryPlan(Record):
    """What one query of a dataset would cost."""

    query: str
    photos: int
    windows: int
    calls: int
    gigabytes: float


class Plan(Record):
    """What a refresh would cost at most: photos that more than one query finds count for each.

    ``calls_spent``: on the plan itself. ``refreshes``: that it takes until all windows were asked. ``hours``: of the
    slower one of API and image host.
    """

    dataset: str
    queries: list[QueryPlan]
    photos: int
    windows: int
    calls: int
    calls_spent: int
    refreshes: int
    hours: float
    gigabytes: float


class PackRef(Record):
    """Photos of one snapshot decoded for training; ``sha256`` is that of its pack.json."""

    digest: str
    sha256: str
    size_bytes: int
    photos: dict[str, int]


class FileRef(Record):
    """A file below the data root, by its relative path and digest."""

    path: str
    sha256: str
    size_bytes: int


class Figure(Record):
    """One measured quantity, its 95 % interval and the trivial baseline it has to beat."""

    name: str
    label: str
    value: float
    low: float
    high: float
    baseline: float
    baseline_label: str
    better: Literal["higher", "lower"]
    unit: str = ""
    beats_baseline: bool


class RunRef(Record):
    """One training run and what it measured."""

    run_id: str
    uri: str
    figures: list[Figure] = []


class AuditRef(Record):
    """What an audit found. ``gone``: of the photos looked at; ``suspected``: gone, but not yet proven to be.

    ``removed``: new removals of known photos; ``unmatched``: those asked for that no known photo matches.
    """

    dataset: str
    checked: int = 0
    gone: int = 0
    suspected: int = 0
    failed: int = 0
    removed: int = 0
    unmatched: int = 0
    scrubbed_snapshots: int = 0
    licence_changes: int = 0


class ComparisonRef(Record):
    """Recipes that were trained with the same seeds on one snapshot and held against each other on its test photos.

    ``runs``: their ids by recipe, in the order of ``seeds``.
    """

    digest: str
    uri: str
    seeds: list[int]
    runs: dict[str, list[str]]


class PredictionRef(Record):
    """What a model said of a person's own photos: predictions.parquet, pictures and report.html in ``uri``."""

    run_id: str
    uri: str
    photos: int
    unreadable: int = 0
