"""A million rows through filter, dedup, labels, split, the audit of the splits, join and publish: seconds, peak memory.

The rows are invented: sizes, owners and uploads like those of a photo site, hashes and thumbnails at random but for
planted duplicates. Each stage is the code of its task, in one process, on a data root of its own.

    python tests/bench/million.py                  # some minutes on two cores, 6 GB of disk
    python tests/bench/million.py --photos 100000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
from acquire.table import markdown

from storage import manifest
from storage.layout import layout
from storage.records import SCHEMAS, ManifestRef
from tasks.dedup import DedupRules, dedup
from tasks.filter import FilterRules, filter_photos
from tasks.join import join_photos
from tasks.labels import LabelRules, label_photos
from tasks.leakage import audit_splits
from tasks.pictures.hashing import views
from tasks.publish import publish_snapshot
from tasks.split import SplitRules, split

SHARD = 50_000
LABELS = [f"category {number:02d}" for number in range(28)]
VIEWS = views(np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8))
SHARE_TWICE = 0.02  # of the photos, which are a copy of another one with a few bits and shades changed


def peak_mb() -> float:
    """The most memory that this process had so far."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def filled(schema_name: str, rows: int, **columns: Any) -> pa.Table:
    """A table of a schema, with ``columns`` and else nulls."""
    schema = SCHEMAS[schema_name]
    arrays = [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in schema]
    return pa.table([pa.array(each).cast(field.type) if not isinstance(each, pa.Array) else each.cast(field.type)
                     for each, field in zip(arrays, schema, strict=True)], schema=schema)  # fmt: skip


def fixed(data: np.ndarray[Any, Any], width: int) -> pa.Array:
    """Rows of bytes as one array."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data.tobytes())])


def keys(first: int, rows: int) -> dict[str, Any]:
    """The photo keys from ``first`` on."""
    numbers = np.arange(first, first + rows)
    return {"source": pa.array(["flickr"] * rows), "photo_id": pa.array(50_000_000_000 + numbers).cast(pa.string())}


def digests(numbers: np.ndarray[Any, Any]) -> pa.Array:
    """64 hexadecimal digits for each number."""
    return pa.array([f"{number:064x}" for number in numbers.tolist()])


def measured(first: int, rows: int, rng: np.random.Generator) -> ManifestRef:
    """One shard of measured photos, some of them a copy of the one before."""
    hashes = rng.integers(0, 256, (rows, 8, 32), np.uint8)
    low = rng.normal(128, 40, (rows, 8, 8)).clip(0, 255)
    thumbnails = (low.repeat(4, 1).repeat(4, 2) + rng.normal(0, 12, (rows, 32, 32))).clip(0, 255).astype(np.uint8)
    copies = np.flatnonzero(rng.random(rows - 1) < SHARE_TWICE) + 1
    hashes[copies], thumbnails[copies] = hashes[copies - 1], thumbnails[copies - 1]
    hashes[copies, 0, 0] ^= 1
    short = rng.integers(600, 4000, rows)
    long = np.round(short * rng.choice([4 / 3, 1.5, 1.5, 1.5, 16 / 9], rows))
    probes = np.tile(VIEWS, (rows, 1))
    probes["sketch"] = rng.integers(0, 2**64, probes.shape, np.uint64)
    probes[copies] = probes[copies - 1]
    table = filled(
        "measure", rows, **keys(first, rows), sha256=digests(np.arange(first, first + rows)),
        format=pa.array(["JPEG"] * rows), width=long.astype(np.int32), height=short.astype(np.int32),
        exif_orientation=np.ones(rows, np.int8), long_px=long.astype(np.int32), short_px=short.astype(np.int32),
        aspect_milli=np.round(1000 * long / short).astype(np.int32), edit_tier=pa.array(["unknown"] * rows),
        phash=fixed(hashes[:, 0], 32), phash_orientations=fixed(hashes, 256),
        phash_probes=pa.array([probe.tobytes() for probe in probes], pa.binary()),
        sharpness=rng.random(rows, np.float32) * 900, brightness=rng.random(rows, np.float32) * 255,
        is_grey=rng.random(rows) < 0.05, entropy=rng.random(rows, np.float32) * 8, thumbnail=fixed(thumbnails, 1024),
    )  # fmt: skip
    return manifest.write(layout(), "measure", table)


def make(photos: int) -> dict[str, Any]:
    """The manifests that the stages begin with."""
    rng, where = np.random.default_rng(0), layout()
    owner_ids = rng.zipf(1.3, photos) % (photos // 10)
    owners = pa.array(owner_ids).cast(pa.string())
    labels = pa.array(LABELS).take(pa.array(rng.integers(0, len(LABELS), photos)))
    shards = [measured(first, min(SHARD, photos - first), rng) for first in range(0, photos, SHARD)]
    every, sha256 = keys(0, photos), digests(np.arange(photos))
    facts = filled(
        "facts", photos, **every, owner_id=owners, owner_name=owners, sha256=sha256,
        format=pa.array(["JPEG"] * photos), bytes=np.full(photos, 300_000), licence=pa.array(["CC BY 2.0"] * photos),
        title=pa.array([f"photo {number} of a day out" for number in range(photos)]),
        page_url=pa.array([f"https://www.flickr.com/photos/{owner}/{n}" for n, owner in enumerate(owner_ids)]),
    )  # fmt: skip
    rotated = filled(
        "rotate", photos, **every, blob=sha256, net_op=np.ones(photos, np.int8),
        landscape_turns=np.zeros(photos, np.int8),
    )  # fmt: skip
    return {
        "measured": shards, "facts": manifest.write(where, "facts", facts),
        "rotated": [manifest.write(where, "rotate", rotated)],
        "owners": manifest.write(where, "owners", filled("owners", photos, **every, owner_id=owners)),
        "tagged": manifest.write(where, "tagged", filled("tagged", photos, **every, label=labels)),
        "decided": manifest.write(where, "decided", SCHEMAS["decided"].empty_table()),
        "given": manifest.write(where, "given", SCHEMAS["given"].empty_table()),
    }  # fmt: skip


def run(begun: dict[str, Any]) -> list[list[str]]:
    """What each stage takes: its name, seconds, and the peak so far."""
    lines = [["begin", "", f"{peak_mb():,.0f} MB"]]

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started_s = time.perf_counter()
        result = call()
        lines.append([name, f"{time.perf_counter() - started_s:.1f} s", f"{peak_mb():,.0f} MB"])
        print(lines[-1], file=sys.stderr, flush=True)
        return result

    shards, owners, decided = begun["measured"], begun["owners"], begun["decided"]
    rules, shares = DedupRules(), SplitRules(mode="balanced")
    filtered = timed("filter", lambda: filter_photos.fn(shards, decided, FilterRules(aspect=None)))
    deduped = timed("dedup", lambda: dedup.fn(shards, filtered, owners, decided, begun["given"], rules))
    labels = timed("labels", lambda: label_photos.fn(begun["tagged"], deduped, decided, LabelRules()))
    splits = timed("split, balanced", lambda: split.fn(deduped, owners, labels, begun["given"], shares))
    proof = timed(
        "audit of the splits", lambda: audit_splits.fn(shards, deduped, owners, labels, splits, rules, shares)
    )
    turned, facts = begun["rotated"], begun["facts"]
    joined = timed(
        "join", lambda: join_photos.fn(facts, shards, filtered, turned, deduped, labels, splits, decided, False)
    )
    pages = {"leakage.json": proof}
    timed("publish", lambda: publish_snapshot(layout(), "million", {}, joined, pages))
    return lines


def main() -> None:
    """Invent the rows in one process, run the stages in another, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=1_000_000)
    options.add_argument("--step", choices=("make", "run"), help=argparse.SUPPRESS)
    asked = options.parse_args()
    begun = layout().root / "begun.json"
    if asked.step == "make":
        layout().root.mkdir(parents=True, exist_ok=True)
        begun.write_text(json.dumps({name: dump(value) for name, value in make(asked.photos).items()}))
    elif asked.step == "run":
        lines = run({name: load(value) for name, value in json.loads(begun.read_text()).items()})
        print(markdown(["stage", "time", "peak so far"], lines))
        print(f"\n{asked.photos:,} photos, {len(VIEWS)} views each; wanted: a peak of at most 4,000 MB")
    else:
        with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
            for step in ("make", "run"):  # the memory of what invents rows is not that of the stages
                command = [sys.executable, __file__, "--photos", str(asked.photos), "--step", step]
                subprocess.run(command, env=os.environ | {"DARKROOM_ROOT": folder}, check=True)


def dump(value: Any) -> Any:
    """References as plain data."""
    return [each.model_dump() for each in value] if isinstance(value, list) else value.model_dump()


def load(value: Any) -> Any:
    """``dump`` undone."""
    return [ManifestRef(**each) for each in value] if isinstance(value, list) else ManifestRef(**value)


if __name__ == "__main__":
    main()
