"""Removals: photos, owners and bytes that must never come back, in all datasets of a root. Append-only Parquet.

A row says what is removed by its columns source, photo_id, owner_id and sha256; a null is a wildcard, so that an owner
alone stands for all photos of that owner, and a sha256 alone for every photo with these bytes.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage import manifest
from storage.errors import ConfigError, RemovedPhoto
from storage.layout import Layout, drafting
from storage.records import SCHEMAS

COLUMNS = ("source", "photo_id", "owner_id", "sha256")
Value = tuple[str | None, str | None, str | None, str | None]  # of COLUMNS


class Blocked:
    """What is removed, for quick questions: one look into a set for each kind of removal, however many there are."""

    def __init__(self, values: Iterable[Value]) -> None:
        self._by_columns: dict[tuple[int, ...], set[tuple[str, ...]]] = {}
        for value in values:
            given = tuple(i for i, each in enumerate(value) if each is not None)
            if given:  # nothing given would be everything
                self._by_columns.setdefault(given, set()).add(tuple(each for each in value if each is not None))

    @classmethod
    def of(cls, removals: pa.Table) -> Self:
        """What the rows of ``removals`` (schema "removals") block."""
        return cls(_values(removals))

    def __bool__(self) -> bool:
        return bool(self._by_columns)

    def is_blocked(self, source: str, photo_id: str, owner_id: str | None = None, sha256: str | None = None) -> bool:
        """Whether a removal stands for this photo. What is not known of it (None) matches no removal by it."""
        asked = (source, photo_id, owner_id, sha256)
        return any(tuple(asked[i] for i in given) in values for given, values in self._by_columns.items())

    def mask(self, rows: pa.Table) -> pa.BooleanArray:
        """For each of ``rows``, whether it is blocked; columns of COLUMNS that it lacks count as not known."""
        columns = [
            rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, pa.string()) for name in COLUMNS
        ]
        suspects = pa.array(np.zeros(rows.num_rows, np.bool_))
        for given, values in self._by_columns.items():  # by the last column alone, for all rows at once
            last = pa.array({value[-1] for value in values}, pa.string())
            suspects = pc.or_(suspects, pc.is_in(columns[given[-1]], last))
        mask = np.zeros(rows.num_rows, np.bool_)
        places = np.flatnonzero(suspects)
        few = zip(*(column.take(pa.array(places)).to_pylist() for column in columns), strict=True)
        mask[places] = [self.is_blocked(*value) for value in few]
        return pa.array(mask)


def add(layout: Layout, rows: Iterable[Mapping[str, Any]]) -> int:
    """Keep ``rows`` (schema "removals", absent values are null) for ever; returns how many say something new.

    Raises ConfigError for a row that names nothing, or a photo or an owner without its source.
    """
    known = set(_values(read(layout)))
    new: dict[Value, Mapping[str, Any]] = {}
    for row in rows:
        value = (row.get("source"), row.get("photo_id"), row.get("owner_id"), row.get("sha256"))
        check(*value)
        if value not in known:
            new.setdefault(value, row)
    if new:
        _write(layout, pa.Table.from_pylist(list(new.values()), schema=SCHEMAS["removals"]))
    return len(new)


def read(layout: Layout) -> pa.Table:
    """All removals, in no order. Schema "removals"."""
    files = sorted(layout.removals.glob("*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables) if tables else SCHEMAS["removals"].empty_table()


def blocked(layout: Layout) -> Blocked:
    """What is removed now."""
    return Blocked.of(read(layout))


def check(source: str | None, photo_id: str | None, owner_id: str | None, sha256: str | None) -> None:
    """Raise ConfigError if that names nothing, or a photo or an owner without its source."""
    value = (source, photo_id, owner_id, sha256)
    if "" in value or not (photo_id or owner_id or sha256):
        raise ConfigError(f"a removal names a photo, an owner or a sha256, not {value!r}")
    if (photo_id or owner_id) and not source:
        raise ConfigError(f"a removal of a photo or an owner names its source too, unlike {value!r}")


def refuse(layout: Layout, rows: pa.Table, what: str) -> None:
    """Raise RemovedPhoto if one of ``rows`` (source, photo_id and what else of COLUMNS is known) was removed.

    ``what`` holds the rows, and begins the sentence.
    """
    found = rows.filter(blocked(layout).mask(rows))
    if found.num_rows:
        raise RemovedPhoto(
            f"{what} holds {found.num_rows:,} removed photos, such as {found['source'][0]}/{found['photo_id'][0]}: run "
            "audit-dataset, which deletes what is left of them, then refresh and try again"
        )


def _values(removals: pa.Table) -> Iterable[Value]:
    return zip(*(removals[name].to_pylist() for name in COLUMNS), strict=True)


def _write(layout: Layout, table: pa.Table) -> None:
    """One more file of removals, named by its digest."""
    table = manifest.conform("removals", table)
    with drafting(layout.removals) as part:
        manifest.write_parquet(part, table, "removals")
        os.replace(part, part.with_name(f"{manifest.sha256_file(part)}.parquet"))
