"""Rows that an older Darkroom wrote, as this one wants them. Files are never rewritten for it: they are read this way.

Every Parquet file says its stage and the version of its schema. Each version has a step to the next one.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import SchemaMismatch
from storage.records import SCHEMA_VERSION, SCHEMAS

# Columns by the version of the schema that brought them
NEW_COLUMNS: dict[int, frozenset[str]] = {
    2: frozenset({
        "quantisation", "ijg_quality", "is_progressive", "phash_probes", "entropy", "labels", "labels_reason",
        "decision", "relabel",
    }),
}  # fmt: skip


def _to_2(stage: str, table: pa.Table) -> pa.Table:
    """Version 1 did not measure what 2 does, had no person's decisions, and kept labels with the owners."""
    return table.drop_columns("label") if stage == "owners" and "label" in table.column_names else table


STEPS: dict[int, Callable[[str, pa.Table], pa.Table]] = {1: _to_2}


def migrate(stage: str, table: pa.Table, version: int) -> pa.Table:
    """``table``, of a ``stage`` in schema ``version``, as the schema of today has it; what was not known then is null.

    Raises SchemaMismatch for a version that is not known yet.
    """
    check_known(stage, version)
    if version == SCHEMA_VERSION or stage not in SCHEMAS:
        return table
    for step in range(version, SCHEMA_VERSION):
        table = STEPS[step](stage, table)
    schema = SCHEMAS[stage]
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).replace_schema_metadata(None)


def check_known(stage: str, version: int) -> None:
    """Raise SchemaMismatch if ``version`` is newer than this Darkroom."""
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"a {stage!r} manifest has schema version {version}, and this Darkroom knows {SCHEMA_VERSION} at most: "
            "it was written by a newer one; update"
        )


def marks(metadata: Mapping[bytes, bytes] | None) -> tuple[str, int]:
    """(stage, schema version) that a Parquet file bears; ("", today's) for one that bears none."""
    said = metadata or {}
    stage = said.get(b"darkroom.stage", b"").decode()
    return stage, int(said.get(b"darkroom.schema_version", SCHEMA_VERSION))


def read(file: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """The rows of a Parquet file as the schema of today has them; all columns, or ``columns``.

    Raises SchemaMismatch for a file of a newer schema.
    """
    written = pq.read_schema(file)
    stage, version = marks(written.metadata)
    names = None if columns is None else list(columns)
    if version == SCHEMA_VERSION or stage not in SCHEMAS:
        return pq.read_table(file, columns=names, partitioning=None)
    known = None if names is None else [name for name in names if name in written.names]
    table = migrate(stage, pq.read_table(file, columns=known, partitioning=None), version)
    return table if names is None else table.select(names)


def names_in(files: Iterable[Path]) -> list[str]:
    """The columns that all of ``files`` have as they were written. Raises SchemaMismatch for a newer schema."""
    schemas = [pq.read_schema(file) for file in files]
    for schema in schemas:
        check_known(*marks(schema.metadata))
    return [name for name in schemas[0].names if all(name in schema.names for schema in schemas)]


def unknown_columns(table: pa.Table) -> set[str]:
    """Columns of ``table`` that came with a schema of which it has nothing at all: its rows are older."""
    has_nothing = [
        names for names in NEW_COLUMNS.values()
        if all(table[name].null_count == table.num_rows for name in names & set(table.column_names))
    ]  # fmt: skip
    return set().union(*has_nothing)
