"""Purging: nothing of a removed photo stays but its key, in no file below the root.

In published snapshots the photo becomes a rejected row of which only the key is left, and the pages about the snapshot
are made anew, as is the report of the next version, which shows what went; weights that learnt from it stay if their
training had ended. Whatever was interrupted is finished by the next purge: ``snapshot.json`` is replaced last, and says
how many rows were scrubbed.
"""

import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import catalog, group_names, manifest, purge, removals, snapshots
from storage.layout import Layout, replacing, write_bytes
from storage.purge import REMOVAL, REMOVED, Remains
from storage.records import SCHEMAS, SPLITS, Record
from tasks.companions import card
from tasks.publish import count, count_labels
from tasks.report import dataset_report
from tasks.reproving import page_of, reproved, told

LOG = logging.getLogger(__name__)
PARTS = ("rejected", *SPLITS)  # in this order: a photo may stand in two files for a moment, but never in none
UNKNOWN = -1  # the version before is not there, and no report is made of it
SCRUBBED = {"verdict": False, "reason": REMOVED, "reason_stage": REMOVAL}


class Purged(Record):
    """What a purge found and deleted, or wrote anew."""

    photos: int = 0
    blobs: int = 0
    outputs: int = 0
    runs: int = 0
    packs: int = 0
    exports: int = 0
    reports: int = 0
    predictions: int = 0
    snapshots: int = 0
    datasets: tuple[str, ...] = ()


def is_needed(where: Layout) -> bool:
    """Whether anything is left of removed photos, or a report may show one of the version before."""
    left = purge.remains(where)
    return bool(
        left or purge.marked_runs(where) or purge.predictions(where, left) or purge.doomed_blobs(where, left)
    ) or (bool(removals.blocked(where)) and any(_is_dated(where, *v) for v in _all(where)))


def _is_dated(where: Layout, name: str, version: int) -> bool:
    facts = catalog.card(where, name, version)
    return removed_before(where, facts).get("removed_before", 0) != facts.get("removed_before", 0)


def _all(where: Layout) -> list[tuple[str, int]]:
    return [(name, version) for name in datasets_of(where) for version in catalog.versions(where, name)]


def purge_removed(where: Layout, held: Collection[str] | None = None) -> Purged:
    """Delete everything that is left of removed photos, in all datasets. Nobody may refresh one meanwhile; ``held``:
    those of which that is certain (None: all)."""
    left = purge.remains(where)
    folder = where.root / "datasets"
    datasets = {path.relative_to(folder).parts[0] for path in [*left.below(folder), *left.naming_below(folder)]}
    purged = Purged(
        photos=len(left.photos),
        blobs=delete_blobs(where, left, held),
        outputs=purge.delete_outputs(where, left) if left else 0,
        reports=clean_runs(where, left, datasets),
        predictions=purge.delete_predictions(where, left),
        runs=purge.delete_runs(where, left),
        packs=purge.delete_packs(where, left),
        exports=purge.delete_exports(where, left),
        snapshots=sum(scrub_snapshot(where, name, version) for name, version in _all(where)),
        datasets=tuple(sorted(datasets)),
    )
    if left or purged.blobs:
        purge.delete_drafts(where)
        purge.rewrite_ledgers(where, left)  # last: it is what tells whose a photo was
        LOG.info("purged %s; weights trained on them stay", " ".join(f"{name}={n}" for name, n in purged))
    return purged


def delete_blobs(where: Layout, left: Remains, held: Collection[str] | None = None) -> int:
    """Delete the files of removed photos and, if anything was removed, those that no row names: they may be theirs; how
    many. ``held``: the datasets that nobody refreshes meanwhile (None: all)."""
    doomed = purge.doomed_blobs(where, left)
    orphans = purge.orphans(where) if left or doomed else []
    if held is not None and not set(datasets_of(where)) <= set(held):  # begun just now: they may be its photos
        LOG.warning("%d files that no row names stay, for collect-garbage: a dataset has just been begun", len(orphans))
        orphans = []
    files = {*orphans, *doomed}
    for path in sorted(files, key=doomed.__contains__):  # the doomed last: whoever is interrupted finds them again
        path.unlink(missing_ok=True)
    return len(files)


def datasets_of(where: Layout) -> list[str]:
    """The names of all datasets below the root, refreshed or only begun."""
    return sorted(path.name for path in (where.root / "datasets").glob("*") if path.is_dir())


def clean_runs(where: Layout, left: Remains, datasets: set[str]) -> int:
    """Leave removed photos out of predictions, scores and evaluations, and delete the pages of runs that may show one,
    with their cards; how many pages.

    The next training of the same snapshot makes them anew. The rows are last: they tell whose pages have to go.
    """
    runs = where.root / "runs"
    named = left.below(runs)
    folders = {path.parent for path in named}
    pages = [
        page
        for page in runs.glob("*/report.html")
        if page.parent in folders or any(f" on {name}, version " in _title(page) for name in datasets)
    ]
    for page in pages:
        page.with_name("README.md").unlink(missing_ok=True)
        page.unlink(missing_ok=True)
    purge.forget_samples(where, [path for path in named if path.suffix == ".json"])
    purge.rewrite(where, [path for path in named if path.suffix != ".json"], "predictions")
    return len(pages)


def _title(page: Path) -> str:
    """What the head of a page says, which names the dataset of a run."""
    with page.open(encoding="utf-8") as stream:
        return stream.read(4096)


def scrub_snapshot(where: Layout, name: str, version: int) -> bool:
    """Leave nothing but their keys of removed photos in a published version; False if nothing had to be done.

    Its report shows photos of the version before too, which must have been scrubbed: it is made anew for these alone.
    """
    folder, facts, blocked = where.snapshot(name, version), catalog.card(where, name, version), removals.blocked(where)
    if not blocked:
        return False
    tables = {part: manifest.read_file(folder / f"{part}.parquet") for part in PARTS}
    masks = {part: blocked.mask(table) for part, table in tables.items()}
    before = tables["rejected"].filter(pc.equal(tables["rejected"]["reason_stage"], REMOVAL)).num_rows
    gone = pa.concat_tables([tables[part].filter(masks[part]).select(["source", "photo_id"]) for part in PARTS])
    gone = gone.group_by(["source", "photo_id"]).aggregate([])
    tables = {part: table.filter(pc.invert(masks[part])) for part, table in tables.items()}
    names = group_names.stale(pa.concat_tables([table.select(group_names.USED) for table in tables.values()]))
    is_told = gone.num_rows == before == facts.get("removed", 0)
    if is_told and not names.num_rows and not any(pc.any(masks[part]).as_py() for part in SPLITS):
        return renew_report(where, folder, tables, facts)
    if is_told:  # whoever is interrupted from here on finds it untold
        _write_facts(folder, {key: value for key, value in facts.items() if key != "removed"})
    tables = {part: group_names.renamed(table, names) for part, table in tables.items()}
    tables["rejected"] = pa.concat_tables([tables["rejected"], scrubbed(gone, tables["rejected"].schema)])
    facts = facts | {"removed": gone.num_rows} | removed_before(where, facts)
    _replace_files(where, folder, tables, facts)
    LOG.info("scrubbed version %d of %s: removed=%d", version, name, gone.num_rows)
    return True


def removed_before(where: Layout, facts: dict[str, Any]) -> dict[str, int]:
    """What snapshot.json says of the photos that were removed from the version before when the report was made."""
    parent = facts.get("parent")
    if parent is None:
        return {}
    is_there = (where.snapshot(facts["dataset"], parent) / "snapshot.json").is_file()
    removed: Any = catalog.card(where, facts["dataset"], parent).get("removed", 0) if is_there else UNKNOWN
    return {"removed_before": removed} if removed or "removed_before" in facts else {}


def renew_report(where: Layout, folder: Path, tables: dict[str, pa.Table], facts: dict[str, Any]) -> bool:
    """Make the report of a version anew if photos were removed from the version before since; whether they were.

    ``tables``: the version's rows that were not removed.
    """
    now = removed_before(where, facts)
    if now.get("removed_before", 0) == facts.get("removed_before", 0):
        return False
    rejected = manifest.read_file(folder / "rejected.parquet")
    joined = _completed(pa.concat_tables([*(tables[split] for split in SPLITS), rejected]))
    facts = facts | now
    write_bytes(folder / "report.html", _report(where, folder, joined, facts))
    facts["files"] = facts["files"] | {"report.html": manifest.sha256_file(folder / "report.html")}
    _write_facts(folder, facts)
    LOG.info("made the report of version %d of %s anew", facts["version"], facts["dataset"])
    return True


def _report(where: Layout, folder: Path, joined: pa.Table, facts: dict[str, Any]) -> bytes:
    """The page about the rows ``joined`` of a version, beside what is left of the version before."""
    file, name = folder / "leakage.json", facts["dataset"]
    leakage = json.loads(file.read_bytes()) if file.is_file() else None
    before = None
    if facts.get("removed_before", 0) > 0:
        files = [where.snapshot(name, facts["parent"]) / f"{part}.parquet" for part in PARTS]
        before = _completed(pa.concat_tables([manifest.read_file(file) for file in files]))
    rules = facts["rules"].get("filter") or {}
    return dataset_report(joined, name, where, rules, before, leakage=leakage).encode()


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
    digests = {f"{part}.parquet": manifest.sha256_file(folder / f"{part}.parquet") for part in tables}
    facts["labels"] = count_labels(joined)
    for name in (snapshots.ROW_HASHES, "labels.json"):  # of rows that are no longer, and tags that nobody else may have
        (folder / name).unlink(missing_ok=True)
    _prove_anew(where, folder / "leakage.json", joined, facts)
    for name, data in card.companions(joined, facts, digests).items():
        write_bytes(folder / name, data)
    write_bytes(folder / "report.html", _report(where, folder, joined, facts))
    others = {"snapshot.json", *(path.name for path in folder.glob(".*"))}
    names = sorted(path.name for path in folder.iterdir() if path.name not in others)
    facts["files"] = {name: manifest.sha256_file(folder / name) for name in names}
    _write_facts(folder, facts)


def _prove_anew(where: Layout, file: Path, joined: pa.Table, facts: dict[str, Any]) -> None:
    """Make the proof of the splits say what holds for ``joined``, in its ``file`` and in ``facts``; or nothing."""
    before = json.loads(file.read_bytes()) if file.is_file() else None
    found = reproved(where, joined, facts["rules"], before) if before else None
    facts.pop("leakage", None)
    if found is None:
        file.unlink(missing_ok=True)
    else:
        facts["leakage"] = told(found)
        write_bytes(file, page_of(found))


def _write_facts(folder: Path, facts: dict[str, Any]) -> None:
    write_bytes(folder / "snapshot.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())


def _completed(table: pa.Table) -> pa.Table:
    """``table`` with the columns that were not yet published when it was, all null."""
    return pa.concat_tables([SCHEMAS["publish"].empty_table(), table], promote_options="permissive").select(
        SCHEMAS["publish"].names
    )
