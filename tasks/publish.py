"""Join what the stages wrote into one table with a verdict for every photo, and publish it as the next snapshot.

The join is a cached task. Publishing never is: it claims the next version by renaming a finished folder into place,
which only one run can do, publishes nothing if nothing differs from the version before, and refuses a suspicious jump.
"""

import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from prefect import task

from storage import catalog, manifest, removals
from storage.layout import Layout, drafting, layout
from storage.records import SCHEMAS, SPLITS, FileRef, ManifestRef, SnapshotRef
from tasks import caching, card
from tasks.errors import GateRefused, SnapshotConflict

REASON_STAGES = ("download", "measure", "filter", "rotate", "dedup", "split")
GATE_MIN_PHOTOS = 20
GATE_MAX_LOSS = 0.5  # of the photos kept before
GATE_MAX_REJECTION_RISE = 0.25  # of all photos found


@dataclass(frozen=True)
class StageOutputs:
    """The rows that one refresh has made, by stage."""

    facts: pa.Table
    measure: pa.Table
    filter: pa.Table
    rotate: pa.Table
    dedup: pa.Table
    split: pa.Table


def join(stages: StageOutputs, locations: bool) -> pa.Table:
    """One row per photo ever found: all columns of all stages, verdict, and the first reason that a stage gave."""
    columns = [name for name in SCHEMAS["publish"].names if name not in _DERIVED]
    with duckdb.connect() as db:
        for name, table in vars(stages).items():
            db.register(name, table.drop_columns(["sha256", "format"]) if name == "measure" else table)
        first = ", ".join(f"{stage}_reason" for stage in REASON_STAGES)
        which = " ".join(f"when {stage}_reason is not null then '{stage}'" for stage in REASON_STAGES)
        rows = db.sql(f"""
            with joined as (
                select * replace (
                    {"latitude" if locations else "null::double"} as latitude,
                    {"longitude" if locations else "null::double"} as longitude,
                    case when sha256 is null then coalesce(download_reason, 'not_downloaded') end as download_reason)
                from facts
                left join measure using (source, photo_id)
                left join "filter" using (source, photo_id)
                left join rotate using (source, photo_id)
                left join dedup using (source, photo_id)
                left join split using (source, photo_id))
            select {", ".join(columns)}, coalesce({first}) as reason, reason is null as verdict,
                   case {which} end as reason_stage
            from joined order by source, photo_id
        """)
        return manifest.conform("publish", rows.to_arrow_table())


_DERIVED = ("verdict", "reason", "reason_stage")


@task(**caching.stage("publish", name="join"))
def join_photos(
    facts: ManifestRef,
    measured: list[ManifestRef],
    filtered: ManifestRef,
    rotated: list[ManifestRef],
    deduped: ManifestRef,
    splits: ManifestRef,
    locations: bool,
) -> ManifestRef:
    """The table that a snapshot consists of."""
    where = layout()
    stages = StageOutputs(
        facts=manifest.read(where, facts),
        measure=manifest.read_all(where, measured),
        filter=manifest.read(where, filtered),
        rotate=manifest.read_all(where, rotated),
        dedup=manifest.read(where, deduped),
        split=manifest.read(where, splits),
    )
    return manifest.write(where, "publish", join(stages, locations))


def count(joined: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """Photos by split (and ``rejected``), and rejected photos by ``stage/reason``, the most frequent first."""
    with duckdb.connect() as db:
        db.register("joined", joined)
        by_split = dict(db.execute("select split, count(*) from joined where verdict group by 1").fetchall())
        by_reason = db.execute(
            "select reason_stage || '/' || reason, count(*) n from joined where not verdict "
            "group by 1 order by n desc, 1"
        ).fetchall()
    counts = {split: int(by_split.get(split, 0)) for split in SPLITS}
    return counts | {"rejected": sum(n for _, n in by_reason)}, {reason: int(n) for reason, n in by_reason}


def gate(before: dict[str, int], now: dict[str, int]) -> str | None:
    """Why a refresh under unchanged rules looks suspicious, or None. Arguments: counts by split and ``rejected``."""
    kept_before, kept = (sum(counts[split] for split in SPLITS) for counts in (before, now))
    if kept_before < GATE_MIN_PHOTOS:
        return None
    if kept < kept_before * (1 - GATE_MAX_LOSS):
        return f"only {kept:,} photos are kept where {kept_before:,} were"
    rise = now["rejected"] / (kept + now["rejected"]) - before["rejected"] / (kept_before + before["rejected"])
    if rise > GATE_MAX_REJECTION_RISE:
        return f"the share of rejected photos rose by {rise:.0%}"
    return None


def publish_snapshot(
    where: Layout, name: str, rules: dict[str, object], joined: ManifestRef, report: FileRef, allow_jump: bool = False
) -> SnapshotRef:
    """Publish ``joined`` as the next version of ``name``, or return the latest version if nothing differs from it.

    Raises GateRefused for a suspicious jump, SnapshotConflict if somebody else took the version meanwhile, and
    RemovedPhoto if a photo was removed while the refresh ran.
    """
    table = manifest.read(where, joined)
    removals.refuse(where, table, f"the next version of {name!r}")
    counts, reasons = count(table)
    parent = max(catalog.versions(where, name), default=None)
    if parent is not None:
        before = catalog.card(where, name, parent)
        unchanged = before["rules"] == rules
        if unchanged and before["joined"] == joined.sha256:
            return _reference(where, name, parent, counts, is_new=False)
        worry = gate(_counts(before), counts) if unchanged and not allow_jump else None
        if worry:
            raise GateRefused(
                f"version {parent + 1} of {name!r} was not published: {worry}. Look at the rejected photos; "
                "if this is right, run the refresh with allow_jump=true"
            )
    facts = {
        "dataset": name, "version": (parent or 0) + 1, "parent": parent, "rules": rules, "counts": counts,
        "reasons": reasons, "joined": joined.sha256, "code_version": metadata.version("darkroom"),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    _claim(where, name, facts, table, where.root / report.path)
    return _reference(where, name, (parent or 0) + 1, counts, is_new=True)


def _claim(where: Layout, name: str, facts: dict[str, Any], table: pa.Table, report: Path) -> None:
    """Write the folder of the version beside its place and rename it there; only the first to do so succeeds."""
    final = where.snapshot(name, facts["version"])
    with drafting(final.parent) as draft:
        draft.mkdir()
        _write_files(draft, facts, table, report)
        try:
            os.rename(draft, final)
        except OSError as error:
            if not final.exists():
                raise
            raise _conflict(final, name) from error


def _conflict(final: Path, name: str) -> SnapshotConflict:
    """Why the folder of a version could not be put in its place."""
    if (final / "snapshot.json").exists():
        return SnapshotConflict(
            f"version {int(final.name)} of {name!r} was published by another run meanwhile: refresh again"
        )
    return SnapshotConflict(
        f"{str(final)!r} has no snapshot.json, so it is none, and stands in the way: remove it, refresh again"
    )


def _write_files(folder: Path, facts: dict[str, Any], table: pa.Table, report: Path) -> None:
    """The files of a snapshot; ``snapshot.json``, which has the digests of the others, is written last."""
    with duckdb.connect() as db:
        db.register("joined", table)
        for split in SPLITS:
            rows = db.sql("select * from joined where verdict and split = $split", params={"split": split})
            manifest.write_parquet(
                folder / f"{split}.parquet", manifest.conform("publish", rows.to_arrow_table()), "publish"
            )
        rejected = db.sql("select * from joined where not verdict").to_arrow_table()
        manifest.write_parquet(folder / "rejected.parquet", manifest.conform("publish", rejected), "publish")
    (folder / "ATTRIBUTION.csv").write_text(card.attribution(table), encoding="utf-8", newline="")
    (folder / "README.md").write_text(card.dataset_card(table, facts), encoding="utf-8")
    shutil.copyfile(report, folder / "report.html")
    facts["files"] = {file.name: manifest.sha256_file(file) for file in sorted(folder.iterdir())}
    (folder / "snapshot.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _reference(where: Layout, name: str, version: int, counts: dict[str, int], is_new: bool) -> SnapshotRef:
    return SnapshotRef(
        dataset=name, version=version, uri=str(where.snapshot(name, version)), counts=counts, is_new=is_new
    )


def _counts(snapshot_card: dict[str, object]) -> dict[str, int]:
    counts = snapshot_card["counts"]
    assert isinstance(counts, dict)
    return counts


def published(where: Layout, name: str, version: int) -> pa.Table:
    """All rows of a published version, kept and rejected, as they were joined."""
    folder = where.snapshot(name, version)
    tables = [manifest.read_file(folder / f"{part}.parquet") for part in (*SPLITS, "rejected")]
    return manifest.conform("publish", pa.concat_tables(tables))
