"""Publish the joined rows as the next snapshot of a dataset.

That is never cached: it claims the next version by renaming a finished folder into place, which only one run can do,
publishes nothing if nothing differs from the version before, and refuses a suspicious jump and a split that leaks.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import catalog, manifest, removals, snapshots, streaming
from storage.layout import Layout, drafting
from storage.records import SCHEMAS, SPLITS, FileRef, ManifestRef, SnapshotRef
from tasks import leakage
from tasks.companions import card
from tasks.errors import GateRefused, SnapshotConflict
from tasks.join import DERIVED

GATE_MIN_PHOTOS = 20
GATE_MAX_LOSS = 0.5  # of the photos kept before, all together or of one label
GATE_MAX_REJECTION_RISE = 0.25  # of all photos found
STRICTNESS = ("filter", "dedup", "labels")  # rules that are meant to change how many photos stay
LESS_IS_LOOSER = {
    "min_long_px", "min_short_px", "min_brightness", "min_sharpness", "min_entropy", "reject_edited", "reject_grey",
    "max_distance_bits", "min_photos", "require",
}  # fmt: skip
MORE_IS_LOOSER = {"aspect_tolerance", "max_brightness", "max_per_owner"}
_BULKY = {"phash", "phash_orientations", "phash_probes", "thumbnail"}  # 1.5 kB a photo, which no page reads
READABLE = [name for name in SCHEMAS["publish"].names if name not in _BULKY]


def count(joined: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """Photos by split (and ``rejected``), and rejected photos by ``stage/reason``, the most frequent first."""
    with duckdb.connect() as db:
        db.register("joined", joined.select(["split", *DERIVED]))
        by_split = dict(db.execute("select split, count(*) from joined where verdict group by 1").fetchall())
        by_reason = db.execute(
            "select reason_stage || '/' || reason, count(*) n from joined where not verdict "
            "group by 1 order by n desc, 1"
        ).fetchall()
    counts = {split: int(by_split.get(split, 0)) for split in SPLITS}
    return counts | {"rejected": sum(n for _, n in by_reason)}, {reason: int(n) for reason, n in by_reason}


def count_labels(joined: pa.Table) -> dict[str, int]:
    """Kept photos by label, the most frequent first."""
    with duckdb.connect() as db:
        db.register("joined", joined.select(["label", "verdict"]))
        rows = db.execute(
            "select label, count(*) n from joined where verdict and label is not null group by 1 order by n desc, 1"
        ).fetchall()
    return {label: int(n) for label, n in rows}


def gate(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why a refresh under rules no stricter than before looks suspicious, or None. Arguments: what snapshot.json says
    of counts."""
    counts_before, counts = before["counts"], now["counts"]
    kept_before, kept = (sum(by_part[split] for split in SPLITS) for by_part in (counts_before, counts))
    if kept_before < GATE_MIN_PHOTOS:
        return None
    if kept < kept_before * (1 - GATE_MAX_LOSS):
        return f"only {kept:,} photos are kept where {kept_before:,} were"
    rise = counts["rejected"] / (kept + counts["rejected"]) - counts_before["rejected"] / (
        kept_before + counts_before["rejected"]
    )
    if rise > GATE_MAX_REJECTION_RISE:
        return f"the share of rejected photos rose by {rise:.0%}"
    labels = now.get("labels", {})
    for label, photos in (before.get("labels") or {}).items():
        if photos >= GATE_MIN_PHOTOS and labels.get(label, 0) < photos * (1 - GATE_MAX_LOSS):
            return f"only {labels.get(label, 0):,} photos are called {label!r} where {photos:,} were"
    return None


def is_stricter(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether one of the rules STRICTNESS may reject more than before; so may any change whose direction is unknown."""
    for each in STRICTNESS:
        was, is_now = before.get(each) or {}, now.get(each) or {}
        if any(not _is_as_loose(name, was.get(name), is_now.get(name)) for name in {*was, *is_now}):
            return True
    return False


def _is_as_loose(name: str, before: Any, now: Any) -> bool:
    """Whether the value ``now`` of a rule rejects nothing that ``before`` let through; None switches most rules off."""
    if before == now or name not in LESS_IS_LOOSER | MORE_IS_LOOSER | {"aspect"}:
        return bool(before == now)
    if before is None or now is None:
        return now is None
    return bool(now < before if name in LESS_IS_LOOSER else name in MORE_IS_LOOSER and now > before)


def split_before(where: Layout, name: str, stages: Sequence[str]) -> dict[str, Any] | None:
    """What the splits of the newest version of ``name`` were made from, and the rules of ``stages``.

    None if there is no version that says so.
    """
    version = max(catalog.versions(where, name), default=None)
    facts: dict[str, Any] = {} if version is None else catalog.card(where, name, version)
    if "split_from" not in facts:
        return None
    return {**facts["split_from"], "rules": {stage: facts["rules"].get(stage) for stage in stages}}


def newest_rows(where: Layout, name: str) -> ManifestRef | None:
    """All rows of the newest version of ``name``, as one manifest; None if nothing was published yet."""
    version = max(catalog.versions(where, name), default=None)
    return None if version is None else manifest.write(where, "publish", published(where, name, version))


def latest(where: Layout, name: str, rules: Mapping[str, object], joined: ManifestRef) -> SnapshotRef | None:
    """The newest version of ``name`` if ``joined`` under ``rules`` differs in nothing from it."""
    version = max(catalog.versions(where, name), default=None)
    if version is None:
        return None
    card = catalog.card(where, name, version)
    if card["rules"] != rules or card["joined"] != joined.sha256:
        return None
    return _reference(where, card, is_new=False)


def publish_snapshot(
    where: Layout, name: str, rules: dict[str, object], joined: ManifestRef, pages: Mapping[str, FileRef],
    allow_jump: bool = False, **more: object,
) -> SnapshotRef:  # fmt: skip
    """Publish ``joined`` as the next version of ``name``, or return the newest version if nothing differs from it.

    ``pages``: files that lie in the snapshot, by their names there; ``more``: what else snapshot.json says. Raises
    GateRefused for a suspicious jump or a split that leaks, SnapshotConflict if somebody else took the version
    meanwhile, and RemovedPhoto if a photo was removed while the refresh ran.
    """
    if (unchanged := latest(where, name, rules, joined)) is not None:
        return unchanged
    table = manifest.read(where, joined, READABLE)
    removals.refuse(where, table, f"the next version of {name!r}")
    counts, reasons = count(table)
    parent = max(catalog.versions(where, name), default=None)
    facts: dict[str, Any] = {
        "dataset": name, "version": (parent or 0) + 1, "parent": parent, **more, "rules": rules, "counts": counts,
        "reasons": reasons, "labels": count_labels(table), "joined": joined.sha256,
        "code_version": metadata.version("darkroom"), "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    if "leakage.json" in pages:
        facts["leakage"] = check_leakage(where, name, pages["leakage.json"])
    if parent is not None:
        published_before = snapshots.published_version(where, name, parent)
        if removed := catalog.card(where, name, parent).get("removed", 0):  # which the report does not show then
            facts["removed_before"] = removed
        facts["changes"] = snapshots.compare(published_before, snapshots.TableVersion(table)).summary.model_dump()
    check_jump(where, facts, allow_jump)
    _claim(where, facts, table, joined, pages)
    return _reference(where, facts, is_new=True)


def check_leakage(where: Layout, name: str, proof: FileRef) -> dict[str, Any]:
    """What the audit of the splits found, without its examples. Raises GateRefused if anything lies in two splits."""
    found = json.loads((where.root / proof.path).read_bytes())
    if not leakage.is_clean(found):
        raise GateRefused(
            f"the splits of {name!r} leak, so nothing was published: {leakage.in_words(found)}. If you kept photos by "
            "hand that belong together, take one of them back; else report this with the proof, "
            f"{str(where.root / proof.path)!r}"
        )
    return {key: value for key, value in found.items() if key not in ("examples", "labels")}


def check_jump(where: Layout, facts: Mapping[str, Any], allow_jump: bool) -> None:
    """Raise GateRefused if what ``facts`` (of snapshot.json) count is far from what their parent counted, and no rule
    became stricter."""
    name, parent = facts["dataset"], facts["parent"]
    if parent is None or allow_jump:
        return
    before: dict[str, Any] = catalog.card(where, name, parent)
    if not is_stricter(before["rules"], facts["rules"]) and (worry := gate(before, facts)):
        raise GateRefused(
            f"version {parent + 1} of {name!r} was not published: {worry}. Look at the rejected photos; "
            "if this is right, run the refresh with allow_jump=true"
        )


def _claim(
    where: Layout, facts: dict[str, Any], table: pa.Table, joined: ManifestRef, pages: Mapping[str, FileRef]
) -> None:
    """Write the folder of the version beside its place and rename it there; only the first to do so succeeds."""
    final = where.snapshot(facts["dataset"], facts["version"])
    with drafting(final.parent) as draft:
        draft.mkdir()
        _write_files(where, draft, facts, table, joined, pages)
        try:
            os.rename(draft, final)
        except OSError as error:
            if not final.exists():
                raise
            raise _conflict(final, facts["dataset"]) from error


def _conflict(final: Path, name: str) -> SnapshotConflict:
    """Why the folder of a version could not be put in its place."""
    if (final / "snapshot.json").exists():
        return SnapshotConflict(
            f"version {int(final.name)} of {name!r} was published by another run meanwhile: refresh again"
        )
    return SnapshotConflict(
        f"{str(final)!r} has no snapshot.json, so it is none, and stands in the way: remove it, refresh again"
    )


PARTS = {split: f"verdict and split = '{split}'" for split in SPLITS} | {"rejected": "not verdict"}


def _write_files(
    where: Layout, folder: Path, facts: dict[str, Any], table: pa.Table, joined: ManifestRef,
    pages: Mapping[str, FileRef],
) -> None:  # fmt: skip
    """The files of a snapshot; ``snapshot.json``, which has the digests of the others, is written last.

    ``table``: the rows of ``joined`` with the columns READABLE.
    """
    with streaming.database(where, joined=joined) as db:
        for part, condition in PARTS.items():
            rows = db.sql(f"select * from joined where {condition} order by source, photo_id")
            streaming.write_parquet(folder / f"{part}.parquet", "publish", rows)
    for page, ref in pages.items():
        shutil.copyfile(where.root / ref.path, folder / page)
    digests = {file.name: manifest.sha256_file(file) for file in sorted(folder.iterdir())}
    snapshots.write_row_hashes(folder, digests)
    for page, data in card.companions(table, facts, digests).items():
        (folder / page).write_bytes(data)
    facts["files"] = {file.name: manifest.sha256_file(file) for file in sorted(folder.iterdir())}
    (folder / "snapshot.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _reference(where: Layout, facts: Mapping[str, Any], is_new: bool) -> SnapshotRef:
    name, version = facts["dataset"], facts["version"]
    return SnapshotRef(
        dataset=name, version=version, uri=str(where.snapshot(name, version)), counts=facts["counts"], is_new=is_new
    )


def published(where: Layout, name: str, version: int) -> pa.Table:
    """All rows of a published version, kept and rejected, as they were joined."""
    folder = where.snapshot(name, version)
    tables = [manifest.read_file(folder / f"{part}.parquet") for part in (*SPLITS, "rejected")]
    return manifest.conform("publish", pa.concat_tables(tables))
