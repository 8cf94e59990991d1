"""Export a snapshot to formats that others read: a tree of classes, Hugging Face Parquet, WebDataset; all upright.

An export is made in a folder beside its place, ``<place>.darkroom-draft``, and renamed when it is whole. Its first file
is ``photos.parquet``, the keys by which a takedown finds it, whole or half; its last is ``export.json``. The same
snapshot under the same rules gives the same bytes.
"""

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage import catalog, manifest, migration, removals
from storage.layout import Layout, layout
from storage.records import SPLITS, Record
from tasks.companions import card
from tasks.companions.licences import licences_csv
from tasks.errors import ConfigError, EmptyResult, StorageError
from tasks.exports import export_huggingface, export_imagefolder, export_webdataset
from tasks.exports.export_folder import MARKER, PHOTOS, check_replaceable, drafting, marker
from tasks.exports.export_names import class_folders
from tasks.exports.export_photos import USED, ExportRules, Format, Sample, in_order, sample
from tasks.publish import READABLE

LOG = logging.getLogger(__name__)
KEYS = ["source", "photo_id", "owner_id", "sha256", "blob"]
FORMATS: dict[Format, ModuleType] = {
    "imagefolder": export_imagefolder, "huggingface": export_huggingface, "webdataset": export_webdataset,
}  # fmt: skip
WRITER = 2  # raised when the same photos under the same rules come to be other bytes
LINE_EVERY_S = 10.0
BATCH = 1000  # rows in memory as Python values


class ExportRef(Record):
    """A finished export. ``photos``: by split; ``is_new``: false if it lay there already."""

    dataset: str
    version: int
    format: Format
    uri: str
    photos: dict[str, int]
    size_bytes: int
    is_new: bool = True


def destination(where: Layout, dataset: str, version: int, rules: ExportRules, target: str | None) -> Path:
    """The folder of an export; a relative ``target`` begins in the folder that holds the data root.

    Raises ConfigError for one that holds anything but an earlier export of the dataset in the same format.
    """
    if target is None:
        return where.exports / f"{dataset}-{version:05d}-{rules.format}"
    folder = where.root.parent / Path(target).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        made = marker(folder)
        if (made.get("dataset"), made.get("format")) != (dataset, rules.format):
            raise ConfigError(
                f"the target {str(folder)!r} is not empty, and no earlier export of {dataset!r} as {rules.format}: "
                "name a folder that is empty, or not there yet"
            )
    elif not folder.is_dir():
        check_replaceable(folder)
    return folder


def check_allowed(where: Layout, folder: Path) -> None:
    """Raise RemovedPhoto if the export in ``folder``, come from wherever, holds a photo that was removed."""
    removals.refuse(where, manifest.read_file(folder / PHOTOS), f"the export {str(folder)!r}")


def write_export(where: Layout, dataset: str, version: int, rules: ExportRules, folder: Path) -> ExportRef:
    """Export a published version to ``folder``, unless it lies there already.

    Raises RemovedPhoto if the version holds a photo that was removed, BlobCorrupt if the file of a photo is lost or
    damaged, EmptyResult if it has no photos, ConfigError if ``folder`` holds files of others, and DiskFull.
    """
    parts = [where.snapshot(dataset, version) / f"{part}.parquet" for part in (*SPLITS, "rejected")]
    table = pa.concat_tables([migration.read(part, READABLE) for part in parts])
    photos = card.kept(table)
    if not photos.num_rows:
        raise EmptyResult(f"version {version} of {dataset!r} has no photos to export")
    what = f"the export of version {version} of {dataset!r}"
    removals.refuse(where, photos, what)
    facts = catalog.card(where, dataset, version)
    told = described(photos, facts, rules)
    if {name: value for name, value in marker(folder).items() if name != "files"} == told:
        return reference(folder, told, is_new=False)
    try:
        with drafting(folder) as draft:
            pq.write_table(photos.select(KEYS).replace_schema_metadata(None), draft / PHOTOS)
            changes: dict[tuple[str, str], str] = {}
            make = partial(_noted, where, rules, changes)
            files = [entry for split in SPLITS for entry in _write_split(draft, photos, split, rules, told, make)]
            for name, data in companions(table, facts, rules, changes).items():
                (draft / name).write_bytes(data)
            removals.refuse(where, photos, what)
            (draft / MARKER).write_text(
                json.dumps(told | {"files": files}, indent=1, ensure_ascii=False) + "\n", "utf-8"
            )
    except (FileNotFoundError, StorageError):
        removals.refuse(where, photos, what)  # a purge took the draft, or a photo's file, away
        raise
    return reference(folder, told, is_new=True)


def described(photos: pa.Table, facts: dict[str, Any], rules: ExportRules) -> dict[str, Any]:
    """What identifies an export, as it stands in export.json."""
    keys = hashlib.sha256()
    for batch in photos.select([*KEYS, "net_op", "split", "label"]).to_batches(max_chunksize=BATCH):
        keys.update(repr(batch.to_pylist()).encode())
    return {
        "dataset": facts["dataset"], "version": facts["version"], **rules.model_dump(mode="json"),
        "photos": {split: pc.sum(pc.equal(photos["split"], split)).as_py() for split in SPLITS},
        "labels": sorted({label for label in photos["label"].to_pylist() if label}),
        "keys": keys.hexdigest(), "joined": facts["joined"], "code_version": facts["code_version"],
        "writer": WRITER,
    }  # fmt: skip


def companions(
    table: pa.Table, facts: dict[str, Any], rules: ExportRules, changes: dict[tuple[str, str], str]
) -> dict[str, bytes]:
    """The files beside the photos: the dataset card, whom to thank and for what, and the licences. ``changes``: what
    was done to each photo, by source and id."""
    form = FORMATS[rules.format]
    data: dict[str, str] = {split: form.DATA.format(split=split) for split in SPLITS}
    files = card.Files(data, form.READING, is_export=True, has_locations=rules.locations)
    texts = {
        "README.md": card.dataset_card(table, facts, files),
        "ATTRIBUTION.csv": card.attribution(table, lambda row: changes[row["source"], row["photo_id"]]),
        "LICENCES.csv": licences_csv(table),
    }
    return {name: text.encode() for name, text in texts.items()}


def reference(folder: Path, told: dict[str, Any], is_new: bool) -> ExportRef:
    """A reference to the export in ``folder``."""
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    named = {name: told[name] for name in ("dataset", "version", "format", "photos")}
    return ExportRef(**named, uri=str(folder), size_bytes=size_bytes, is_new=is_new)


def _noted(where: Layout, rules: ExportRules, changes: dict[tuple[str, str], str], row: dict[str, Any]) -> Sample:
    """The photo of ``row`` as it is exported; what was done to it goes into ``changes``."""
    made = sample(where, row, rules)
    changes[row["source"], row["photo_id"]] = sys.intern(made.facts["changes"])
    return made


def _write_split(
    folder: Path, photos: pa.Table, split: str, rules: ExportRules, told: dict[str, Any],
    make: Callable[[dict[str, Any]], Sample],
) -> list[dict[str, Any]]:  # fmt: skip
    """Write the photos of one split; its entries of export.json."""
    if not (total := told["photos"][split]):
        return []
    rows = _rows(photos.filter(pc.equal(photos["split"], split)).select(USED), f"export {split}", total)
    if rules.format == "imagefolder":
        return export_imagefolder.write_split(folder, split, rows, make, class_folders(told["labels"]))
    samples = in_order(make, rows)
    if rules.format == "huggingface":
        return export_huggingface.write_split(folder, split, samples, rules.schema, told["labels"])
    return export_webdataset.write_split(folder, split, samples, told["labels"])


def _rows(photos: pa.Table, label: str, total: int) -> Iterator[dict[str, Any]]:
    """The rows of ``photos`` as mappings; a line of the log now and then says how far it is."""
    spoken_at = time.monotonic()
    for begun, row in enumerate(row for batch in photos.to_batches(max_chunksize=BATCH) for row in batch.to_pylist()):
        if time.monotonic() - spoken_at > LINE_EVERY_S:
            LOG.info("%s: %d of %d", label, begun, total)
            spoken_at = time.monotonic()
        yield row
    LOG.info("%s: %d of %d", label, total, total)


@task(name="export", task_run_name="export", cache_policy=NO_CACHE, persist_result=False)
def export(dataset: str, version: int, rules: ExportRules, folder: str) -> ExportRef:
    """Export a published version to ``folder``. Never cached: an export may be moved away or deleted by anybody."""
    return write_export(layout(), dataset, version, rules, Path(folder))
