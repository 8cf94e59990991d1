"""An old version of a dataset, ready to be published anew: its photos, splits and reasons, under the rules of then.

What people decided since counts where it takes photos away: removed photos stay away, and what somebody rejected by
hand is rejected. Photos that were kept or relabelled by hand since come back as they were.
"""

import hashlib
import json
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storage import catalog, group_names, manifest, overrides, removals
from storage.errors import BlobCorrupt
from storage.layout import Layout, write_bytes
from storage.records import DEDUP, LABELS, SCHEMAS, SPLIT, FileRef, ManifestRef, SnapshotRef
from tasks.publish import published
from tasks.reproving import page_of, reproved

BY_HAND = {
    "filter_reason": "rejected_by_hand",
    "decision": "reject",
    "reason": "rejected_by_hand",
    "reason_stage": "filter",
}
CLEARED = [name for name, _ in (*DEDUP, *LABELS, *SPLIT)]  # what comes after the filter knows nothing of such a photo


def restored(where: Layout, name: str, version: int) -> ManifestRef:
    """The table of a version, less what was taken down since: of that not even the key comes back. What was rejected by
    hand since is rejected.

    Raises BlobCorrupt if a photo that it keeps is no longer there.
    """
    table = allowed(where, published(where, name, version))
    table = rejected_by_hand(table, overrides.decided(where, name))
    table = group_names.renamed(table, group_names.stale(table))
    files = table.filter(table["verdict"]).select(["blob", "format"]).rename_columns(["sha256", "format"])
    if lost := catalog.lost(where, files.filter(files["sha256"].is_valid())).num_rows:
        raise BlobCorrupt(
            f"version {version} of {name!r} cannot be published anew: the files of {lost:,} of its photos are gone "
            f"from {str(where.root)!r}; put them back, from a backup for instance"
        )
    return manifest.write(where, "publish", table)


def allowed(where: Layout, table: pa.Table) -> pa.Table:
    """The rows of ``table`` that nobody had removed."""
    return table.filter(pc.invert(removals.blocked(where).mask(table)))


def rejected_by_hand(table: pa.Table, decided: pa.Table) -> pa.Table:
    """``table`` (schema "publish") with the photos it keeps that are rejected in ``decided`` (schema "decided") as
    rejected rows."""
    values = ", ".join(f"'{value}' as {column}" for column, value in BY_HAND.items())
    cleared = ", ".join(f"null as {column}" for column in CLEARED)
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.register("rows", table)
        db.register("decided", decided)
        db.execute("""
            create view refused as select source, photo_id from rows join decided using (source, photo_id)
            where verdict and decided.decision = 'reject'
        """)
        kept = db.sql("select * from rows anti join refused using (source, photo_id)")
        gone = db.sql(f"""
            select * replace (false as verdict, {values}, {cleared})
            from rows semi join refused using (source, photo_id)
        """)
        return pa.concat_tables([each.to_arrow_table().cast(SCHEMAS["publish"]) for each in (kept, gone)])


def rejected_since(where: Layout, name: str, version: int) -> int:
    """How many of the photos that a version keeps were rejected by hand since."""
    with duckdb.connect() as db:
        db.register("rows", allowed(where, published(where, name, version)).select(["source", "photo_id", "verdict"]))
        db.register("decided", overrides.decided(where, name))
        [(photos,)] = db.sql("""
            select count(*) from rows join decided using (source, photo_id)
            where verdict and decided.decision = 'reject'
        """).fetchall()
    return int(photos)


def unchanged(where: Layout, name: str, version: int, joined: ManifestRef) -> SnapshotRef | None:
    """The newest version, if it has the rows ``joined`` and the rules of ``version`` already."""
    newest = catalog.versions(where, name)[-1]
    card: dict[str, Any] = catalog.card(where, name, newest)
    if version != newest and (
        card["rules"] != catalog.card(where, name, version)["rules"] or restored(where, name, newest) != joined
    ):
        return None
    return SnapshotRef(
        dataset=name, version=newest, uri=str(where.snapshot(name, newest)), counts=card["counts"], is_new=False
    )


def proofs(where: Layout, name: str, version: int, joined: ManifestRef) -> dict[str, FileRef]:
    """What a version proves of itself for its rows ``joined``, by file name: the splits are proven anew.

    The account of the labels goes with all of the rows only.
    """
    folder = where.snapshot(name, version)
    found: dict[str, FileRef] = {}
    labels, leakage = folder / "labels.json", folder / "leakage.json"
    if labels.is_file() and manifest.write(where, "publish", published(where, name, version)) == joined:
        found[labels.name] = manifest.file_ref(where, labels)
    if leakage.is_file():
        rules: Any = catalog.card(where, name, version)["rules"]
        if (
            proof := reproved(where, manifest.read(where, joined), rules, json.loads(leakage.read_bytes()))
        ) is not None:
            page = page_of(proof)
            file = where.root / "stages" / "leakage" / f"{hashlib.sha256(page).hexdigest()}.json"
            write_bytes(file, page)
            found[leakage.name] = manifest.file_ref(where, file)
    return found
