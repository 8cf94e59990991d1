"""Manifests as views of a DuckDB, and written from a stream: for tables that should not stand in memory whole."""

from __future__ import annotations  # else Prefect's threads keep DuckDB's types alive, and it says so at exit

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from storage import manifest
from storage.errors import SchemaMismatch
from storage.layout import Layout, drafting
from storage.records import SCHEMAS, ManifestRef

ROWS, WIDE_ROWS = 200_000, 50_000  # of a group that is written at once; of rows that carry thumbnails and hashes
MEMORY_GB = 1.0  # beyond it DuckDB works on disk


@contextmanager
def database(layout: Layout, **manifests: ManifestRef | Iterable[ManifestRef]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with one view for each of ``manifests``, by its name; of several files, one after the other.

    Raises ManifestMissing.
    """
    scratch = layout.root / "scratch"
    with duckdb.connect(config={"temp_directory": str(scratch), "memory_limit": f"{MEMORY_GB}GB"}) as db:
        db.execute("set timezone = 'UTC'")
        db.execute("set parquet_metadata_cache = true")  # a view reads it when it is made, and whoever asks it again
        for name, refs in manifests.items():
            refs = [refs] if isinstance(refs, ManifestRef) else list(refs)
            paths = ", ".join("'" + str(manifest.path(layout, ref)).replace("'", "''") + "'" for ref in refs)
            db.execute(f'create view "{name}" as select * from read_parquet([{paths}], hive_partitioning = false)')
        yield db


def write(layout: Layout, stage: str, rows: duckdb.DuckDBPyRelation) -> ManifestRef:
    """Store ``rows`` as a manifest of ``stage``, in the order in which they come. Raises SchemaMismatch."""
    with drafting(layout.root / "stages" / stage) as part:
        count = write_parquet(part, stage, rows)
        digest, size_bytes = manifest.sha256_file(part), part.stat().st_size
        os.replace(part, layout.stage(stage, digest))
    return ManifestRef(stage=stage, sha256=digest, size_bytes=size_bytes, rows=count)


def write_parquet(path: Path, stage: str, rows: duckdb.DuckDBPyRelation) -> int:
    """Write ``rows`` (columns of ``stage``, in any order) to ``path``; how many they were. Raises SchemaMismatch."""
    schema = SCHEMAS[stage]
    if set(rows.columns) != set(schema.names):
        wrong = sorted(set(rows.columns) ^ set(schema.names))
        raise SchemaMismatch(f"a {stage!r} manifest must have the columns {schema.names}; missing or foreign: {wrong}")
    count, most = 0, WIDE_ROWS if "thumbnail" in schema.names else ROWS
    reader = rows.to_arrow_reader(most)
    with manifest.parquet_writer(path, stage, _coded(schema, reader.schema)) as writer:
        groups = _groups(reader, most)
        as_kept = (table.select(schema.names).cast(writer.schema) for table in groups)
        for table in _one_ahead(as_kept):
            writer.write_table(table, row_group_size=most)
            count += table.num_rows
    return count


def _coded(schema: pa.Schema, coming: pa.Schema) -> pa.Schema:
    """``schema`` with those columns as codes that come as such (DuckDB's ENUM): they need not be looked up again."""
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(coming.field(field.name).type):
            schema = schema.set(place, field.with_type(coming.field(field.name).type))
    return schema


def _one_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """``tables``, the next of which is being made while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


def _groups(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly ``rows`` rows, but for the last: equal rows must give equal files, however they come."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        while sum(part.num_rows for part in waiting) >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
    if waiting:
        yield pa.Table.from_batches(waiting)
