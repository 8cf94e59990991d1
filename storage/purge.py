"""Deleting what is left of removed photos: bytes, outputs of stages, unfinished trainings, packs, exports, predictions,
rows of ledgers.

What a model said of a person's own photos has names that the person gave: it is told by the bytes alone, and goes as a
whole.

Everything follows from the removals and from what lies below the root, never from the memory of a run: whoever is
interrupted begins again. The ledgers are last, because they say whose a photo is and which bytes it has.
"""

import fcntl
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import garbage, group_names, manifest, removals
from storage.errors import StorageError
from storage.layout import Layout, replacing, write_bytes
from storage.removals import COLUMNS, Blocked

LOG = logging.getLogger(__name__)
REMOVED, REMOVAL = "removed", "removal"  # reason and stage of a published row of which nothing but its key is left
READ = (*COLUMNS, "blob", "download_reason", "reason_stage", "group_id")
WITH_ROWS = (  # of JSON: the samples whose pictures it keeps
    "stages/*/*.parquet", "runs/*/predictions.parquet", "runs/*/scores.parquet", "runs/*/evaluation.json",
    "packs/*/*.parquet",
    "datasets/*/snapshots/[0-9]*/*.parquet", "datasets/*/ledger/*/*.parquet", "exports/**/photos.parquet",
)  # fmt: skip
OWN_PHOTOS = "predictions/[!.]*/predictions.parquet"
KEYS = ("source", "photo_id")
OWNED = ("source", "owner_id")
IMPLIED = "its owner or its bytes were removed"
_DOOMED = ".removed"  # an export on its way out: nobody reads or writes it under this name; or, in a run, a mark
DRAFT_S = 24 * 3600.0  # a draft that is older belongs to nobody


@dataclass(frozen=True)
class Remains:
    """Rows of removed photos by the file that has them (columns: those of READ that the file has).

    ``naming``: files in which the photos of others are of a group that is named by a removed owner.
    """

    rows: dict[Path, pa.Table] = field(default_factory=dict)
    naming: frozenset[Path] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rows or self.naming)

    def below(self, folder: Path) -> list[Path]:
        """The files with rows of removed photos in ``folder``, however deep."""
        return [path for path in self.rows if path.is_relative_to(folder)]

    def naming_below(self, folder: Path) -> list[Path]:
        """The files in ``folder`` that only name a removed owner."""
        return sorted(path for path in self.naming - set(self.rows) if path.is_relative_to(folder))

    @property
    def names(self) -> set[str]:
        """The names of groups that the owners of the photos give."""
        owned = [rows for rows in self.rows.values() if {"source", "owner_id"} <= set(rows.column_names)]
        pairs = [pair for rows in owned for pair in zip(*(rows[n].to_pylist() for n in OWNED), strict=True)]
        return {f"{group_names.OWNER}{source}/{owner}" for source, owner in pairs if owner}

    @property
    def photos(self) -> set[tuple[str, str]]:
        """The keys of the photos."""
        return {key for rows in self.rows.values() for key in _keys(rows)}

    @property
    def digests(self) -> set[str]:
        """The digests of their files, as downloaded and as turned."""
        return {digest for rows in self.rows.values() for digest in _digests(rows)}


def remains(layout: Layout) -> Remains:
    """What is left of removed photos. Photos of removed owners, and with removed bytes, become removals themselves:
    most files do not say whose a photo is."""
    blocked = removals.blocked(layout)
    if not blocked:
        return Remains()
    found = _scan(layout, blocked)
    implied = [
        {"source": source, "photo_id": photo_id, "reason": "implied", "proof": IMPLIED, "removed_at": datetime.now(UTC)}
        for source, photo_id in sorted(found.photos)
        if not blocked.is_blocked(source, photo_id)
    ]
    return _scan(layout, removals.blocked(layout)) if removals.add(layout, implied) else found


def _scan(layout: Layout, blocked: Blocked) -> Remains:
    found: dict[Path, pa.Table] = {}
    naming, doomed = set[Path](), pa.array(sorted(group_names.doomed(layout)), pa.string())
    for path, rows in _files(layout):
        is_mine = blocked.mask(rows)
        if "download_reason" in rows.column_names:  # its bytes were refused, and are not held to tell by
            is_mine = pc.or_(is_mine, pc.equal(pc.coalesce(rows["download_reason"], pa.scalar("")), REMOVED))
        mine = rows.filter(is_mine)
        if mine.num_rows:
            found[path] = mine
        if "group_id" in rows.column_names and pc.any(pc.is_in(rows["group_id"], doomed)).as_py():
            naming.add(path)
    return Remains(found, frozenset(naming))


def _files(layout: Layout, patterns: tuple[str, ...] = WITH_ROWS) -> Iterator[tuple[Path, pa.Table]]:
    """Every file with rows of photos and these rows, less those of which nothing but the key is left."""
    for path in sorted(path for pattern in patterns for path in layout.root.glob(pattern)):
        if path.parent.name.startswith("."):  # a draft
            continue
        try:
            rows = _read(path)
        except (FileNotFoundError, pa.ArrowInvalid, ValueError) as error:  # deleted meanwhile, or damaged
            LOG.warning("not looked at for removed photos: %s (%s)", path, error)
            continue
        if rows is not None:
            yield path, rows


def _read(path: Path) -> pa.Table | None:
    """The columns READ of a file; None if it has no photos."""
    if path.suffix == ".json":
        samples = [sample for each in _pictured(json.loads(path.read_bytes())) for sample in each]
        keys = [{name: str(sample[name]) for name in KEYS} for sample in samples]
        return pa.Table.from_pylist(keys, schema=pa.schema(dict.fromkeys(KEYS, pa.string()))) if keys else None
    names = pq.read_schema(path).names
    if not {"source", "photo_id"} <= set(names):
        return None
    rows = pq.read_table(path, columns=[name for name in READ if name in names], partitioning=None)
    if "reason_stage" in names:
        rows = rows.filter(pc.not_equal(pc.coalesce(rows["reason_stage"], pa.scalar("")), REMOVAL))
    return rows


def _pictured(evaluation: Any) -> Iterator[list[dict[str, Any]]]:
    """The lists of samples that an evaluation.json keeps for pictures, each of a photo that it names."""
    pictures = evaluation.get("pictures") if isinstance(evaluation, dict) else None
    for each in pictures.values() if isinstance(pictures, dict) else ():
        if (
            isinstance(each, list)
            and each
            and all(isinstance(sample, dict) and sample.keys() >= {*KEYS} for sample in each)
        ):
            yield each


def doomed_blobs(layout: Layout, left: Remains) -> list[Path]:
    """The files of the removed photos, those derived from them, and those with removed bytes, whether or not a row ever
    named them, that no other photo has."""
    asked_for = set(removals.read(layout)["sha256"].to_pylist()) - {None}
    files = {digest: found for digest in left.digests | asked_for if (found := _blob_files(layout, digest))}
    blocked = removals.blocked(layout)
    for _, rows in _files(layout) if files else ():
        for digest in _digests(rows.filter(pc.invert(blocked.mask(rows)))):
            files.pop(digest, None)
    return [path for found in files.values() for path in found]


def orphans(layout: Layout) -> list[Path]:
    """The files of photos that no row names: a download or a rotation was killed before it could, and whose they are is
    not known. None if what else refers to photos cannot be told. Nobody may refresh a dataset meanwhile."""
    pictures = list(layout.root.glob("blobs/*/*/[!.]*"))
    try:
        used = garbage.photos_in_use(layout, layout.root.glob("stages/*/[!.]*"))
    except (StorageError, OSError, ValueError, duckdb.Error) as error:  # pa.ArrowInvalid among them
        LOG.warning("what killed downloads may have left stays, for collect-garbage: %s", error)
        return []
    named = {digest for _, rows in _files(layout) for digest in _digests(rows)}  # earlier files of a photo among them
    return [path for path in garbage.unnamed(pictures, used) if path.stem not in named]


def _digests(rows: pa.Table) -> set[str]:
    """The digests that ``rows`` name, of files as downloaded and as turned."""
    columns = [rows[name] for name in ("sha256", "blob") if name in rows.column_names]
    return {digest for column in columns for digest in pc.unique(column).to_pylist() if digest}


def _blob_files(layout: Layout, digest: str) -> list[Path]:
    """The file with that digest, whatever its format is said to be."""
    return list(layout.blob(digest, "JPEG").parent.glob(f"{digest}.*"))


def delete_outputs(layout: Layout, left: Remains) -> int:
    """Delete outputs of stages with a row of a removed photo or a group named by its owner, all pages and accounts;
    how many."""
    stages = layout.root / "stages"
    names = pa.array(sorted(left.names | group_names.doomed(layout)), pa.string())
    naming = {
        path for path, rows in _files(layout, ("stages/*/*.parquet",))
        if "group_id" in rows.column_names and pc.any(pc.is_in(rows["group_id"], names)).as_py()
    }  # fmt: skip
    files = {*left.below(stages), *naming, *stages.glob("report/*.html"), *stages.glob("*/*.json")}
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def delete_runs(layout: Layout, left: Remains) -> int:
    """Delete what trainings that did not end left of packs that hold a removed photo; how many. One that still lives
    notices at its end, and keeps nothing; it is marked, for the next purge, lest it is killed before. The packs must
    still be there: they tell which runs these are."""
    packs = {path.parent.name for path in left.below(layout.root / "packs")}
    requests = [path for path in layout.root.glob("runs/*/train.run.json") if _pack_of(path) in packs]
    unfinished = {path.parent for path in requests if not path.with_name("train.json").exists()}
    return sum(_delete_run(folder) for folder in sorted(unfinished | marked_runs(layout)))


def marked_runs(layout: Layout) -> set[Path]:
    """The folders of trainings on removed photos that lived when a purge came."""
    return {path.parent for path in layout.root.glob(f"runs/*/{_DOOMED}")}


def _pack_of(request: Path) -> str | None:
    """The digest of the pack that a run was begun on."""
    try:
        return Path(json.loads(request.read_bytes())["pack_dir"]).name
    except (OSError, ValueError, KeyError, TypeError) as error:  # deleted meanwhile, or damaged
        LOG.warning("not looked at for removed photos: %s (%s)", request, error)
        return None


def _delete_run(folder: Path) -> bool:
    """Delete the folder of a run; False if its training lives: then it is marked."""
    with (folder / ".lock").open("a") as lock:  # models/fit.py holds it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (folder / _DOOMED).touch()
            return False
        for path in [path for path in folder.iterdir() if path.name not in ("train.run.json", _DOOMED)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(folder)  # and what tells of it last: whoever is interrupted finds it again
    return True


def delete_packs(layout: Layout, left: Remains) -> int:
    """Delete the packs that hold a removed photo; how many."""
    folders = {path.parent for path in left.below(layout.root / "packs")}
    for folder in folders:
        (folder / "pack.json").unlink(missing_ok=True)  # first: what is half deleted is no pack
        shutil.rmtree(folder)
    return len(folders)


def delete_exports(layout: Layout, left: Remains) -> int:
    """Delete the exports, finished or not, that hold a removed photo, however deep below the folder of exports they
    lie; how many. What was exported to another place is not known here."""
    folders = sorted({path.parent for path in left.below(layout.exports)}, key=lambda path: path.suffix != _DOOMED)
    for folder in folders:
        with suppress(FileNotFoundError):  # whoever was writing it has noticed, and deleted it
            is_doomed = folder.suffix == _DOOMED
            is_doomed |= folder == layout.exports  # where the next purge would not look under another name
            doomed = folder if is_doomed else folder.rename(folder.with_name(folder.name + _DOOMED))
            for path in [path for path in doomed.iterdir() if path.name != "photos.parquet"]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.rmtree(doomed)  # and its keys last: whoever is interrupted finds it again
    return len(folders)


def predictions(layout: Layout, left: Remains) -> list[Path]:
    """The folders of what a model said of a person's own photos, among which were bytes that are removed, or those of a
    photo that is, whoever else may have them."""
    blocked, digests, found = removals.blocked(layout), pa.array(sorted(left.digests), pa.string()), []
    for path in sorted(layout.root.glob(OWN_PHOTOS)) if blocked else ():
        try:
            has_bytes = "sha256" in pq.read_schema(path).names
            rows = pq.read_table(path, columns=["sha256"], partitioning=None) if has_bytes else None
        except (FileNotFoundError, pa.ArrowInvalid) as error:  # deleted meanwhile, or damaged
            LOG.warning("not looked at for removed photos: %s (%s)", path, error)
            continue
        if rows is not None and pc.any(pc.or_(blocked.mask(rows), pc.is_in(rows["sha256"], digests))).as_py():
            found.append(path.parent)
    return found


def delete_predictions(layout: Layout, left: Remains) -> int:
    """Delete these folders: table, pictures and page; how many."""
    folders = predictions(layout, left)
    for folder in folders:
        for path in [path for path in folder.iterdir() if path.name != "predictions.parquet"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(folder)  # and its digests last: whoever is interrupted finds it again
    return len(folders)


def forget_samples(layout: Layout, paths: list[Path]) -> None:
    """Leave the samples of removed photos out of files evaluation.json."""
    blocked = removals.blocked(layout)
    for path in paths:
        evaluation = json.loads(path.read_bytes())
        for each in _pictured(evaluation):
            each[:] = [sample for sample in each if not blocked.is_blocked(*(str(sample[name]) for name in KEYS))]
        write_bytes(path, (json.dumps(evaluation, indent=2) + "\n").encode())


def rewrite(layout: Layout, paths: list[Path], stage: str) -> None:
    """Leave the rows of removed photos out of files of ``stage``. They keep their names, so that a ledger which had
    adopted their rows does not adopt them again."""
    blocked = removals.blocked(layout)
    for path in paths:
        rows = manifest.read_file(path)
        with replacing(path) as part:
            manifest.write_parquet(part, rows.filter(pc.invert(blocked.mask(rows))), stage)


def rewrite_ledgers(layout: Layout, left: Remains) -> set[str]:
    """Leave removed photos, and the names that removed owners gave to groups, out of all ledgers; the names of the
    datasets that had such photos. The versions must have been scrubbed."""
    for folder in sorted((layout.root / "datasets").glob("*/ledger/splits")):
        group_names.follow(layout, folder.parents[1].name)
    paths = [path for path in left.below(layout.root / "datasets") if path.parents[1].name == "ledger"]
    for path in paths:
        rewrite(layout, [path], path.parent.name)
    return {path.parents[2].name for path in paths}


def delete_drafts(layout: Layout) -> int:
    """Delete transfers that were cut and what killed processes left half written; how many.

    None says which photo it belongs to. Nobody may refresh a dataset meanwhile; what others write is left for a day.
    """
    old = time.time() - DRAFT_S
    drafts = [path for path in layout.root.rglob(".*.part") if path.lstat().st_mtime < old]
    drafts += [path for folder in ("datasets", "blobs") for path in (layout.root / folder).rglob(".*.part")]
    for path in {*drafts, *layout.partial.glob("*.part")}:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(drafts)


def _keys(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["source"].to_pylist(), rows["photo_id"].to_pylist(), strict=True))
