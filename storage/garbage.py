"""What nothing refers to any more: outputs of stages, kept results, packs, photos, weights and pauses that are over;
found, and deleted.

A snapshot refers to its files, to the table that it was made from, and to every photo of its rows; a ledger to the
photos that are held; a training that has not ended to its pack; every run, finished or not, to the weights that it
started from. Whatever is young is left alone, for it may be somebody's work: a result that is used again counts as new.
What was deleted is made again when it is wanted; weights are copied again from the file that was given.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import catalog, pauses
from storage.errors import StorageError
from storage.layout import Layout
from storage.records import SPLITS, FileRef, ManifestRef, PackRef
from storage.views import all_versions

LOG = logging.getLogger(__name__)
PHOTO_COLUMNS = ("sha256", "blob")  # name files of photos
KINDS = ("stages", "cache", "packs", "blobs", "weights", "pauses")


@dataclass(frozen=True)
class Heap:
    """Garbage of one kind: files or, of packs, folders. ``kept``: how many others there are."""

    kind: str
    paths: list[Path]
    size_bytes: int
    kept: int


def find(layout: Layout, before_s: float) -> list[Heap]:
    """All garbage that was not touched since ``before_s`` (seconds of the epoch), by kind. Nobody may refresh a dataset
    meanwhile. Raises StorageError for a damaged file of a snapshot: what it refers to is not known. If a file of a run
    is damaged, no pack and no weights are garbage."""
    outputs = [path for path in layout.root.glob("stages/*/[!.]*") if path.is_file()]
    stages = _old(set(outputs) - set(joined(layout)), before_s)
    folders = list(layout.root.glob("packs/[!.]*"))
    used_by_runs = in_use_by_runs(layout)
    packs = _old(set(folders) - used_by_runs, before_s)
    results = [path for path in layout.cache.glob("*/[!.]*") if path.is_file()]
    cache = [path for path in _old(results, before_s) if names_missing(layout, path, {*stages, *packs})]
    pictures = list(layout.root.glob("blobs/*/*/[!.]*"))
    blobs = unnamed(_old(pictures, before_s), photos_in_use(layout, set(outputs) - set(stages)))
    copies = [path for path in layout.root.glob("weights/**/[!.]*") if path.is_file()]
    weights = _old(set(copies) - used_by_runs, before_s)
    told = list(layout.pauses.glob("[!.]*"))
    over = [path for path in _old(told, before_s) if pauses.read(path, datetime.now(UTC)) is None]
    every = {
        "stages": outputs, "cache": results, "packs": folders, "blobs": pictures, "weights": copies, "pauses": told,
    }  # fmt: skip
    doomed = {"stages": stages, "cache": cache, "packs": packs, "blobs": blobs, "weights": weights, "pauses": over}
    return [
        Heap(kind, doomed[kind], sum(map(size_bytes, doomed[kind])), len(every[kind]) - len(doomed[kind]))
        for kind in KINDS
    ]


def mark_used(layout: Layout, refs: Iterable[ManifestRef | FileRef | PackRef]) -> None:
    """Let what ``refs`` name count as new: a result that is used again is no garbage."""
    for ref in refs:
        match ref:
            case ManifestRef():
                os.utime(layout.stage(ref.stage, ref.sha256))
            case FileRef():
                os.utime(layout.root / ref.path)
            case PackRef():
                os.utime(layout.pack(ref.digest) / "pack.json")


def delete(heaps: Iterable[Heap]) -> None:
    """Delete what ``find`` found. Whoever is interrupted finds the rest."""
    for heap in heaps:
        for path in heap.paths:
            if path.is_dir():
                (path / "pack.json").unlink(missing_ok=True)  # first: what is half deleted is no pack
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def size_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.lstat().st_size


def joined(layout: Layout) -> Iterator[Path]:
    """The tables that snapshots were made from."""
    for name, version in all_versions(layout):
        with _reading(layout.snapshot(name, version) / "snapshot.json"):
            sha256 = str(catalog.card(layout, name, version)["joined"])
        yield layout.stage("publish", sha256)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raises StorageError if the block cannot read ``file``, or does not find in it what it looks for."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # pa.ArrowInvalid too
        raise StorageError(
            f"nothing was deleted that {str(file)!r} may refer to, for it is damaged ({type(error).__name__}): put it "
            "back from a backup"
        ) from error


def in_use_by_runs(layout: Layout) -> set[Path]:
    """The packs and the files of weights that runs need: all there are if one of the runs does not say which."""
    try:
        return {*packs_in_use(layout), *weights_in_use(layout)}
    except StorageError as error:
        LOG.warning("no packs and no weights are collected: %s, or delete the folder of the run", error)
        return {*layout.root.glob("packs/*"), *layout.root.glob("weights/**/*")}


def packs_in_use(layout: Layout) -> Iterator[Path]:
    """The packs of trainings that were begun and not yet judged: they may go on."""
    for request in layout.root.glob("runs/*/*.run.json"):
        if not request.with_name("evaluation.json").is_file():
            with _reading(request):
                name = Path(json.loads(request.read_bytes())["pack_dir"]).name
            yield layout.pack(name)


def weights_in_use(layout: Layout) -> Iterator[Path]:
    """The files of weights that runs started from, and the accounts of what these have learnt."""
    digests = set[str]()
    for file in (path for name in ("*.run.json", "train.json") for path in layout.root.glob(f"runs/*/{name}")):
        with _reading(file):
            for start in json.loads(file.read_bytes()).get("start_from", []):
                # in a request a path, in a card an account
                digests.add(start["sha256"] if isinstance(start, dict) else Path(start).parent.name)
    for path in layout.root.glob("weights/*/*/*"):
        if path.parent.name in digests:
            yield path
            yield from path.parents[1].glob("*.parquet")


def photos_in_use(layout: Layout, outputs: Iterable[Path]) -> pa.Array:
    """Digests of the files that a snapshot, a ledger or one of ``outputs`` names."""
    digests: list[pa.Array] = []
    cards = layout.root.glob("datasets/*/snapshots/[0-9]*/snapshot.json")
    parts = {card.with_name(f"{part}.parquet") for card in cards for part in (*SPLITS, "rejected")}
    for path in sorted(parts.union(layout.root.glob("datasets/*/snapshots/[0-9]*/*.parquet"))):
        with _reading(path):
            digests += _digests(path)
    for folder in layout.root.glob("datasets/[!.]*"):
        digests += catalog.held(layout, folder.name)["sha256"].chunks
    for path in outputs:
        if path.suffix == ".parquet":
            try:
                digests += _digests(path)
            except (FileNotFoundError, pa.ArrowInvalid) as error:  # it will be made again, and its photos with it
                LOG.warning("not asked which photos it names: %s (%s)", path, error)
    return pc.unique(pa.chunked_array(digests, pa.string()))


def _digests(path: Path) -> list[pa.Array]:
    names = [name for name in PHOTO_COLUMNS if name in pq.read_schema(path).names]
    return [
        chunk for column in pq.read_table(path, columns=names, partitioning=None).columns for chunk in column.chunks
    ]


def unnamed(pictures: list[Path], named: pa.Array) -> list[Path]:
    """Those of ``pictures`` whose digest is not ``named``."""
    is_named = pc.is_in(pa.array([path.stem for path in pictures], pa.string()), named)
    return [path for path, keep in zip(pictures, is_named.to_pylist(), strict=True) if not keep]


def names_missing(layout: Layout, record: Path, doomed: set[Path]) -> bool:
    """Whether a kept result is of no use: it has expired, or a file that it names is gone or ``doomed``."""
    try:
        result = json.loads(record.read_bytes())["result"]
        named = list(_named(layout, json.loads(result))) if result else []
    except (ValueError, KeyError, TypeError, RecursionError):  # not ours
        return False
    return any(path in doomed or not path.exists() for path in named) or not result or result == "null"


def _named(layout: Layout, value: Any) -> Iterator[Path]:
    """Every file or pack that a reference inside ``value`` (plain data) names; see storage/records.py."""
    if isinstance(value, list):
        for item in value:
            yield from _named(layout, item)
    elif isinstance(value, dict):
        match value:
            case {"stage": str(stage), "sha256": str(sha256)}:
                yield layout.stage(stage, sha256)
            case {"path": str(path), "sha256": str(_)}:
                yield layout.root / path
            case {"digest": str(digest), "photos": dict(_)}:
                yield layout.pack(digest)
            case _:
                yield from _named(layout, list(value.values()))


def _old(paths: Iterable[Path], before_s: float) -> list[Path]:
    """Those of ``paths`` that nobody touched since, in order; a pack is as old as its card."""
    return sorted(path for path in paths if _touched_s(path) < before_s)


def _touched_s(path: Path) -> float:
    card = path / "pack.json"
    return (card if card.is_file() else path).lstat().st_mtime
