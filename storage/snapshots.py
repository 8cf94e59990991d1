"""Published versions: read, verified against their digests, and compared, photo by photo and column by column.

Two versions are compared by a hash of each row, so that only rows which differ are read whole. Publishing leaves these
hashes beside the rows; where they are missing, or were made by another DuckDB, they are computed from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import catalog, manifest, migration
from storage.layout import Layout
from storage.purge import REMOVAL
from storage.records import SCHEMA_VERSION, SCHEMAS, SPLITS, Record

PARTS = (*SPLITS, "rejected")
KEY = ["source", "photo_id"]
ROW_HASHES = "row_hashes.arrow"  # mapped into memory, not read
# 1.5 kB a photo that follow from its file, of which sha256 and phash say enough
BULKY = {"phash_orientations", "phash_probes", "thumbnail"}
COMPARED = [name for name in SCHEMAS["publish"].names if name not in BULKY]
SHOWN = ("verdict", "split", "reason_stage", "reason")  # of a photo that differs, before and now
_CHUNK = 1_000_000  # rows looked at at a time, so that they stay in the processor's cache
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


class DiffSummary(Record):
    """How two versions differ, in photos. ``by_column``: changed ones by column, the most first.

    ``taken_down`` are among ``removed``; ``moved``: kept in both, in other splits; ``reasons``: of the newly rejected.
    """

    added: int
    removed: int
    taken_down: int
    changed: int
    by_column: dict[str, int]
    moved: int
    newly_kept: int
    newly_rejected: int
    reasons: dict[str, int]


@dataclass(frozen=True)
class Diff:
    """What differs between two versions: ``rows`` has one for each photo that does, by key.

    Columns: source, photo_id; ``change``: added, removed, taken_down or changed; ``columns``: the names of those that
    changed; verdict, split, reason_stage and reason, as they were (``was_verdict``, ...) and as they are.
    """

    rows: pa.Table

    def of(self, *changes: str) -> pa.Table:
        """The rows of these changes."""
        return self.rows.filter(pc.is_in(self.rows["change"], pa.array(changes)))

    @property
    def added(self) -> pa.Table:
        """Photos that only the new version has."""
        return self.of("added")

    @property
    def removed(self) -> pa.Table:
        """Photos that only the old version has, and those taken down since."""
        return self.of("removed", "taken_down")

    @property
    def changed(self) -> pa.Table:
        """Photos of both with ``columns`` that differ."""
        return self.of("changed")

    @cached_property
    def moved(self) -> pa.Table:
        """Photos that both versions keep, in different splits."""
        return self._where("verdict and was_verdict and split <> was_split")

    @cached_property
    def newly_rejected(self) -> pa.Table:
        """Photos that the old version keeps and the new one rejects, with the reason."""
        return self._where("was_verdict and not verdict and change = 'changed'")

    @cached_property
    def newly_kept(self) -> pa.Table:
        """Photos that the old version rejects, with its reason, and the new one keeps."""
        return self._where("verdict and not was_verdict and change = 'changed'")

    @property
    def summary(self) -> DiffSummary:
        """The numbers."""
        return DiffSummary(
            added=self.added.num_rows, removed=self.removed.num_rows, taken_down=self.of("taken_down").num_rows,
            changed=self.changed.num_rows, by_column=frequencies(pc.list_flatten(self.changed["columns"])),
            moved=self.moved.num_rows, newly_kept=self.newly_kept.num_rows, newly_rejected=self.newly_rejected.num_rows,
            reasons=frequencies(self.newly_rejected["reason"]),
        )  # fmt: skip

    def _where(self, condition: str) -> pa.Table:
        with duckdb.connect() as db:
            db.register("rows", self.rows)
            return db.sql(f"select * from rows where {condition} order by source, photo_id").to_arrow_table()


def frequencies(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each of ``values`` occurs, the most frequent first."""
    counts = [(each["values"].as_py(), each["counts"].as_py()) for each in values.value_counts()]
    return dict(sorted(counts, key=lambda each: (-each[1], each[0])))


class Version(Protocol):
    """The rows of one version, in some order that stays."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of what is known of a row."""

    def hashes(self, db: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> Hashes:
        """A hash of ``columns`` for each row."""

    def take(self, db: duckdb.DuckDBPyConnection, places: Places, columns: Sequence[str]) -> pa.Table:
        """``columns`` of the rows at ``places`` (ascending)."""


class TableVersion:
    """Rows in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        unknown = migration.unknown_columns(table)
        self.columns = [name for name in table.column_names if name not in unknown]

    def hashes(self, db: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> Hashes:
        """A hash of ``columns`` for each row."""
        db.register("rows", self._table.select(list(columns)))
        return _fetch_hashes(db, "rows", columns)

    def take(self, db: duckdb.DuckDBPyConnection, places: Places, columns: Sequence[str]) -> pa.Table:
        """``columns`` of the rows at ``places``."""
        return self._table.select(list(columns)).take(pa.array(places))


class PublishedVersion:
    """The files of a published version; ``card``: its snapshot.json."""

    def __init__(self, folder: Path, card: Mapping[str, Any]) -> None:
        self._files = [folder / f"{part}.parquet" for part in PARTS]
        self._digests = [card["files"][file.name] for file in self._files]
        self.row_hashes = folder / ROW_HASHES
        self._starts = np.cumsum([0, *(pq.read_metadata(file).num_rows for file in self._files)])
        self.columns = migration.names_in(self._files)

    def hashes(self, db: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> Hashes:
        """A hash of ``columns`` for each row."""
        if self.row_hashes.is_file() and _mark(self._digests, columns) == _marked(self.row_hashes):
            return _kept_hashes(self.row_hashes)
        return _fetch_hashes(db, _parquet(self._files), columns)

    def take(self, db: duckdb.DuckDBPyConnection, places: Places, columns: Sequence[str]) -> pa.Table:
        """``columns`` of the rows at ``places``."""
        cuts = np.searchsorted(places, self._starts)
        parts = [
            _rows_at(db, file, places[first:last] - start, columns)
            for file, start, first, last in zip(self._files, self._starts, cuts, cuts[1:], strict=False)
        ]
        return pa.concat_tables(parts, promote_options="permissive")


def _rows_at(db: duckdb.DuckDBPyConnection, file: Path, places: Places, columns: Sequence[str]) -> pa.Table:
    db.register("places", pa.table({"place": places}))
    return db.sql(
        f"select {_names(columns)} from {_parquet([file])} where file_row_number in (select place from places)"
    ).to_arrow_table()


def _fetch_hashes(db: duckdb.DuckDBPyConnection, rows: str, columns: Sequence[str]) -> Hashes:
    """In the order of ``rows``, which DuckDB keeps unless told otherwise."""
    lists = [name for name in columns if pa.types.is_list(SCHEMAS["publish"].field(name).type)]
    told = ", ".join([_names(columns), *(f'len("{name}")' for name in lists)])  # else no list is like an empty one
    found = db.execute(f"select hash({told}) as row_hash from {rows}").fetchnumpy()
    return np.asarray(found["row_hash"], np.uint64)


def _parquet(files: Sequence[Path]) -> str:
    names = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _mark(digests: Sequence[str], columns: Sequence[str]) -> str:
    """What hashes of rows depend on: the rows, the columns, and who hashed them."""
    return f"duckdb {duckdb.__version__} schema {SCHEMA_VERSION} {' '.join(columns)} of {' '.join(digests)}"


def _marked(file: Path) -> str:
    with pa.memory_map(str(file)) as stream:
        return str((pa.ipc.open_file(stream).schema.metadata or {}).get(b"darkroom.rows", b"").decode())


def _kept_hashes(file: Path) -> Hashes:
    with pa.memory_map(str(file)) as stream:
        hashes: Hashes = pa.ipc.open_file(stream).read_all()["row_hash"].to_numpy()
    return hashes


def write_row_hashes(folder: Path, digests: Mapping[str, str]) -> None:
    """Leave the hash of every row beside the four manifests in ``folder``; ``digests``: theirs, by file name."""
    files = [folder / f"{part}.parquet" for part in PARTS]
    columns = compared(migration.names_in(files))
    mark = _mark([digests[file.name] for file in files], columns)
    with duckdb.connect() as db:
        hashes = _fetch_hashes(db, _parquet(files), columns)
    table = pa.table({"row_hash": hashes}).replace_schema_metadata({"darkroom.rows": mark})
    with pa.ipc.new_file(str(folder / ROW_HASHES), table.schema) as writer:
        writer.write_table(table)


def compared(columns: Sequence[str]) -> list[str]:
    """Those of ``columns`` that are compared, in the order of the schema."""
    return [name for name in COMPARED if name in columns]


def diff(old: pa.Table, new: pa.Table) -> Diff:
    """How ``new`` differs from ``old``, both of schema "publish"."""
    return compare(TableVersion(old), TableVersion(new))


def diff_versions(layout: Layout, dataset: str, old: int, new: int) -> Diff:
    """How version ``new`` of a dataset differs from version ``old``."""
    return compare(published_version(layout, dataset, old), published_version(layout, dataset, new))


def published_version(layout: Layout, dataset: str, version: int) -> PublishedVersion:
    """A published version, to be compared."""
    return PublishedVersion(layout.snapshot(dataset, version), catalog.card(layout, dataset, version))


def compare(old: Version, new: Version) -> Diff:
    """How ``new`` differs from ``old`` in the columns that both know: what one has never heard of is no change.

    Two different rows count as equal with a chance of 2^-64.
    """
    columns = [name for name in compared(old.columns) if name in new.columns]
    with duckdb.connect() as db:
        places = lonely(old.hashes(db, columns), new.hashes(db, columns))
        for name, version, where in zip(("before", "now"), (old, new), places, strict=True):
            db.register(name, version.take(db, where, columns))
        return Diff(db.sql(_changes(columns)).to_arrow_table().cast(_DIFF))


def _changes(columns: Sequence[str]) -> str:
    """The query that joins the rows ``before`` and ``now`` by key. Of what was taken down nothing but its key is there.

    A photo that came after the old version and was taken down since is in neither.
    """
    differing = ", ".join(
        f"""case when before."{name}" is distinct from now."{name}" then '{name}' end"""
        for name in columns if name not in KEY
    )  # fmt: skip
    shown = ", ".join(f"before.{name} as was_{name}, now.{name} as {name}" for name in SHOWN)
    gone = f"coalesce(now.reason_stage = '{REMOVAL}', false)"
    was_gone = f"coalesce(before.reason_stage = '{REMOVAL}', false)"
    return f"""
        with joined as (
            select coalesce(before.source, now.source) as source, coalesce(before.photo_id, now.photo_id) as photo_id,
                   case when before.source is null then case when not {gone} then 'added' end
                        when {gone} or (now.source is null and {was_gone}) then 'taken_down'
                        when now.source is null then 'removed'
                        when {was_gone} then 'added' else 'changed' end as change,
                   list_filter([{differing}], lambda name: name is not null) as columns, {shown}
            from before full join now on before.source = now.source and before.photo_id = now.photo_id)
        select * replace (case when change = 'changed' then columns else [] end as columns)
        from joined where change is not null order by source, photo_id
    """


_STATE = [("verdict", pa.bool_()), ("split", pa.string()), ("reason_stage", pa.string()), ("reason", pa.string())]
_DIFF = pa.schema([
    *((name, pa.string()) for name in KEY), ("change", pa.string()), ("columns", pa.list_(pa.string())),
    *((f"{time}{name}", kind) for name, kind in _STATE for time in ("was_", "")),
])  # fmt: skip


def lonely(old: Hashes, new: Hashes) -> tuple[Places, Places]:
    """The places of what stands in only one of ``old`` and ``new``."""
    both = np.concatenate([old, new])
    both.sort()
    alone = np.ones(both.size, np.bool_)
    repeated = both[1:] == both[:-1]
    alone[1:] &= ~repeated
    alone[:-1] &= ~repeated
    wanted = both[alone]
    return _places_of(wanted, old), _places_of(wanted, new)


def _places_of(wanted: Hashes, hashes: Hashes) -> Places:
    """Where ``hashes`` has one of ``wanted`` (sorted): few are left by their lowest bits, looked up in a table."""
    mask = np.uint64(2 ** max(8, math.ceil(math.log2(32 * wanted.size + 1))) - 1)
    table = np.zeros(int(mask) + 1, np.bool_)
    table[wanted & mask] = True
    found = []
    for start in range(0, hashes.size, _CHUNK):
        chunk = hashes[start : start + _CHUNK]
        suspects = np.flatnonzero(table[chunk & mask])
        nearest = np.minimum(np.searchsorted(wanted, chunk[suspects]), max(0, wanted.size - 1))
        found.append(suspects[wanted[nearest] == chunk[suspects]] + start)
    return np.concatenate([np.empty(0, np.int64), *found])


def verify(layout: Layout, dataset: str, version: int) -> list[str]:
    """What is wrong with the files of a published version, a sentence each; none if they are as they were published."""
    folder = layout.snapshot(dataset, version)
    wrong = []
    for name, digest in dict(catalog.card(layout, dataset, version)["files"]).items():  # type: ignore[call-overload]
        if not (folder / name).is_file():
            wrong.append(f"{name} of version {version} of {dataset!r} is missing")
        elif manifest.sha256_file(folder / name) != digest:
            wrong.append(f"{name} of version {version} of {dataset!r} has other bytes than were published")
    return wrong
