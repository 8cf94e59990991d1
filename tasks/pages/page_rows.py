"""The photos that a report is about, as a DuckDB table, and the few whole rows of it that the page shows.

Which photos are shown follows from their keys alone, so the same rows give the same page in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage import manifest
from storage.layout import Layout
from storage.records import SCHEMAS, ManifestRef

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]

_UNREAD = {"latitude", "longitude", "thumbnail", "phash", "phash_orientations", "phash_probes", "image_url"}
COLUMNS = tuple(name for name in SCHEMAS["publish"].names if name not in _UNREAD)
DRAWN = "md5(source || '/' || photo_id)"  # orders photos as if at random, and always the same way


def read(layout: Layout, joined: ManifestRef) -> pa.Table:
    """Those of COLUMNS that ``joined`` has; an older one may lack some."""
    known = pq.read_schema(manifest.path(layout, joined)).names
    return manifest.read(layout, joined, [name for name in COLUMNS if name in known])


def database(table: pa.Table, before: pa.Table | None = None) -> duckdb.DuckDBPyConnection:
    """``table`` (COLUMNS of schema "publish") as ``photos``, and the version before it as ``before``.

    Moments are UTC without a zone; ``drawn`` is the place of a photo in the draw.
    """
    db = duckdb.connect()
    for name, rows in (("photos", table), ("before", before)):
        if rows is not None:
            db.register("given", _without_zones(_complete(rows)))
            db.execute(f"""
                create table {name} as
                select * replace (coalesce(verdict, false) as verdict), {DRAWN} as drawn from given
            """)
            db.unregister("given")
    return db


def _complete(table: pa.Table) -> pa.Table:
    """COLUMNS of ``table``; those that an older version had not heard of are null."""
    for name in COLUMNS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, SCHEMAS["publish"].field(name).type))
    return table.select(COLUMNS)


def _without_zones(table: pa.Table) -> pa.Table:
    """``table`` with moments as DuckDB reads them without a database of time zones."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            naive = table.column(place).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).cast(pa.timestamp("us"))
            table = table.set_column(place, field.name, naive)
    return table


def only(db: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The one row that ``query`` answers."""
    [row] = db.execute(query).fetchall()
    found: tuple[Any, ...] = row
    return found


def number(db: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one whole number that ``query`` answers."""
    return int(only(db, query)[0])


def columns(db: duckdb.DuckDBPyConnection, query: str, **values: Any) -> list[Floats]:
    """The columns that ``query`` answers, none of them null, as arrays."""
    found = db.execute(query, values or None).fetchnumpy()
    return [np.asarray(column, dtype=np.float64) for column in found.values()]


def rows(db: duckdb.DuckDBPyConnection, query: str, **values: Any) -> list[Row]:
    """What ``query`` answers, by column."""
    found: list[Row] = db.sql(query, params=values or None).to_arrow_table().to_pylist()
    return found


def first(db: duckdb.DuckDBPyConnection, count: int, where: str, order: str = "drawn") -> list[Row]:
    """The first ``count`` photos for which ``where`` is true, by ``order`` and then as drawn; of each file only one."""
    query = f"""
        select * from photos where {where}
        qualify row_number() over (partition by coalesce(sha256, drawn) order by drawn) = 1
        order by {order}, drawn limit {count}
    """
    return rows(db, query)


def first_of_each(
    db: duckdb.DuckDBPyConnection, by: Sequence[str], count: int, where: str = "true"
) -> dict[tuple[Any, ...], list[Row]]:
    """The first ``count`` photos, as drawn, of each combination of the columns ``by``, in no order of these."""
    query = f"""
        select * from photos where {where}
        qualify row_number() over (partition by {", ".join(by)} order by drawn) <= {count} order by drawn
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows(db, query):
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return found
