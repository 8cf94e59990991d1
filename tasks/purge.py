"""Purging: nothing of a removed photo stays but its key, in no file below the root.

In published snapshots the photo becomes a rejected row of which only the key is left, and the pages about the snapshot
are made anew; weights that learnt from it stay. Whatever was interrupted is finished by the next purge:
``snapshot.json`` is replaced last, and says how many rows were scrubbed.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import catalog, manifest, purge, removals, snapshots
from storage.layout import Layout, replacing, write_bytes
from storage.purge import REMOVAL, REMOVED, Remains
from storage.records import SCHEMAS, SPLITS, Record
from tasks.companions import card
from tasks.publish import count, count_labels
from tasks.report import dataset_report

LOG = logging.getLogger(__name__)
PARTS = ("rejected", *SPLITS)  # in this order: a photo may stand in two files for a moment, but never in none
SCRUBBED = {"verdict": False, "reason": REMOVED, "reason_stage": REMOVAL}


class Purged(Record):
    """What a purge found and deleted, or wrote anew."""

    photos: int = 0
    blobs: int = 0
    outputs: int = 0
    packs: int = 0
    exports: int = 0
    reports: int = 0
    snapshots: int = 0
    datasets: tuple[str, ...] = ()


def is_needed(where: Layout) -> bool:
    """Whether anything is left of removed photos."""
    return bool(purge.remains(where).rows)


def purge_removed(where: Layout) -> Purged:
    """Delete everything that is left of removed photos, in all datasets. Nobody may refresh one meanwhile."""
    left = purge.remains(where)
    datasets = {path.relative_to(where.root / "datasets").parts[0] for path in left.below(where.root / "datasets")}
    versions = [(name, version) for name in datasets_of(where) for version in catalog.versions(where, name)]
    purged = Purged(
        photos=len(left.photos),
        blobs=purge.delete_blobs(where, left),
        outputs=purge.delete_outputs(where, left) if left.rows else 0,
        reports=clean_runs(where, left, datasets),
        packs=purge.delete_packs(where, left),
        exports=purge.delete_exports(where, left),
        snapshots=sum(scrub_snapshot(where, name, version) for name, version in versions),
        datasets=tuple(sorted(datasets)),
    )
    if left.rows:
        purge.delete_drafts(where)
        purge.rewrite_ledgers(where, left)  # last: it is what tells whose a photo was
        LOG.info("purged %s; weights trained on them stay", " ".join(f"{name}={n}" for name, n in purged))
    return purged


def datasets_of(where: Layout) -> list[str]:
    """The names of all datasets below the root, refreshed or only begun."""
    return sorted(path.name for path in (where.root / "datasets").glob("*") if path.is_dir())


def clean_runs(where: Layout, left: Remains, datasets: set[str]) -> int:
    """Leave removed photos out of predictions, and delete the pages of runs that may show one; how many pages.

    The next training of the same snapshot makes them anew.
    """
    predictions = left.below(where.root / "runs")
    purge.rewrite(where, predictions, "predictions")
    folders = {path.parent for path in predictions}
    pages = [
        page
        for page in (where.root / "runs").glob("*/report.html")
        if page.parent in folders or any(f" on {name}, version " in _title(page) for name in datasets)
    ]
    for page in pages:
        page.unlink(missing_ok=True)
    return len(pages)


def _title(page: Path) -> str:
    """What the head of a page says, which names the dataset of a run."""
    with page.open(encoding="utf-8") as stream:
        return stream.read(4096)


def scrub_snapshot(where: Layout, name: str, version: int) -> bool:
    """Leave nothing but their keys of removed photos in a published version; False if nothing had to be done."""
    folder = where.snapshot(name, version)
    tables = {part: manifest.read_file(folder / f"{part}.parquet") for part in PARTS}
    facts = catalog.card(where, name, version)
    blocked = removals.blocked(where)
    masks = {part: blocked.mask(table) for part, table in tables.items()}
    before = tables["rejected"].filter(pc.equal(tables["rejected"]["reason_stage"], REMOVAL)).num_rows
    gone = pa.concat_tables([tables[part].filter(masks[part]).select(["source", "photo_id"]) for part in PARTS])
    gone = gone.group_by(["source", "photo_id"]).aggregate([])
    if gone.num_rows == before == facts.get("removed", 0) and not any(pc.any(masks[part]).as_py() for part in SPLITS):
        return False
    tables = {part: table.filter(pc.invert(masks[part])) for part, table in tables.items()}
    tables["rejected"] = pa.concat_tables([tables["rejected"], scrubbed(gone, tables["rejected"].schema)])
    _replace_files(where, folder, tables, facts | {"removed": gone.num_rows})
    LOG.info("scrubbed version %d of %s: removed=%d", version, name, gone.num_rows)
    return True


def scrubbed(keys: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of ``schema`` for photos of which only the keys (source, photo_id) are left."""
    rows = [dict.fromkeys(schema.names) | key | SCRUBBED for key in keys.to_pylist()]
    return pa.Table.from_pylist(rows, schema=schema)


def _replace_files(where: Layout, folder: Path, tables: dict[str, pa.Table], facts: dict[str, Any]) -> None:
    """Write the files of a snapshot anew, each whole or not at all; ``snapshot.json`` last."""
    for part, table in tables.items():
        table = table.sort_by([("source", "ascending"), ("photo_id", "ascending")])
        with replacing(folder / f"{part}.parquet") as draft:
            manifest.write_parquet(draft, table, "publish")
    joined = _completed(pa.concat_tables(tables.values()))
    facts["counts"], facts["reasons"] = count(joined)
    facts["joined"] = manifest.write(where, "publish", joined).sha256
    rules = facts["rules"].get("filter") or {}
    digests = {f"{part}.parquet": manifest.sha256_file(folder / f"{part}.parquet") for part in tables}
    facts["labels"] = count_labels(joined)
    for name in (snapshots.ROW_HASHES, "labels.json"):  # of rows that are no longer, and tags that nobody else may have
        (folder / name).unlink(missing_ok=True)
    pages = card.companions(joined, facts, digests)
    proof = folder / "leakage.json"
    leakage = json.loads(proof.read_bytes()) if proof.is_file() else None
    pages["report.html"] = dataset_report(joined, facts["dataset"], where, rules, leakage=leakage).encode()
    for name, data in pages.items():
        write_bytes(folder / name, data)
    others = {"snapshot.json", *(path.name for path in folder.glob(".*"))}
    names = sorted(path.name for path in folder.iterdir() if path.name not in others)
    facts["files"] = {name: manifest.sha256_file(folder / name) for name in names}
    write_bytes(folder / "snapshot.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())


def _completed(table: pa.Table) -> pa.Table:
    """``table`` with the columns that were not yet published when it was, all null."""
    return pa.concat_tables([SCHEMAS["publish"].empty_table(), table], promote_options="permissive").select(
        SCHEMAS["publish"].names
    )
