"""Manifests: immutable Parquet files of rows, named by the digest of their bytes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage import migration
from storage.errors import ManifestMissing, SchemaMismatch
from storage.layout import Layout, drafting
from storage.records import SCHEMA_VERSION, SCHEMAS, FileRef, ManifestRef

_ROW_GROUP = 200_000
# Columns with a value of its own for each photo: to look for repetitions in them costs half of the time of writing.
_OWN = {
    "photo_id", "sha256", "blob", "phash", "phash_orientations", "phash_probes", "thumbnail", "title", "page_url",
    "image_url", "sharpness", "brightness", "entropy",
}  # fmt: skip
# Whole numbers by which everything is filtered, as they are: unpacking them takes longer than reading more bytes.
_BARE = {"long_px", "short_px", "aspect_milli"}


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def conform(stage: str, table: pa.Table) -> pa.Table:
    """``table`` with exactly the columns of ``stage``, in order and sorted by photo key; raises SchemaMismatch."""
    schema = SCHEMAS[stage]
    if set(table.column_names) != set(schema.names):
        wrong = sorted(set(table.column_names) ^ set(schema.names))
        raise SchemaMismatch(f"a {stage!r} manifest must have the columns {schema.names}; missing or foreign: {wrong}")
    try:
        table = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatch(f"a column of a {stage!r} manifest has the wrong type: {error}") from error
    if "photo_id" in schema.names:
        table = table.sort_by([("source", "ascending"), ("photo_id", "ascending")])
    return table


def parquet_writer(path: Path, stage: str, schema: pa.Schema) -> pq.ParquetWriter:
    """What writes rows of ``stage`` to ``path``, marked with their stage and schema version.

    A column that ``schema`` has as codes of a dictionary is read back as its values. A table with such columns is one
    that is written in haste and read whole: what serves readers of parts, a third of the time, is left out.
    """
    marks = {b"darkroom.stage": stage.encode(), b"darkroom.schema_version": str(SCHEMA_VERSION).encode()}
    paths = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]
    is_plain = not any(pa.types.is_dictionary(field.type) for field in schema)
    is_filtered = not _BARE.isdisjoint(paths)
    writer = pq.ParquetWriter(
        path, schema.with_metadata(marks),
        compression={path: "none" if path in _BARE else "zstd" for path in paths} if is_filtered else "zstd",
        use_dictionary=[path for path in paths if path not in _OWN | _BARE],
        store_schema=is_plain, write_statistics=is_plain, use_content_defined_chunking=is_plain,
    )  # fmt: skip
    if not is_plain:  # the marks would go with the schema
        writer.add_key_value_metadata(marks)
    return writer


def write_parquet(path: Path, table: pa.Table, stage: str) -> None:
    """Write ``table`` to ``path``, marked with its stage and schema version."""
    with parquet_writer(path, stage, table.schema) as writer:
        writer.write_table(table.replace_schema_metadata(writer.schema.metadata), row_group_size=_ROW_GROUP)


def write(layout: Layout, stage: str, table: pa.Table) -> ManifestRef:
    """Store ``table`` as a manifest of ``stage``. The same rows give the same reference, whatever their order."""
    table = conform(stage, table)
    with drafting(layout.root / "stages" / stage) as part:
        write_parquet(part, table, stage)
        digest, size_bytes = sha256_file(part), part.stat().st_size
        os.replace(part, layout.stage(stage, digest))
    return ManifestRef(stage=stage, sha256=digest, size_bytes=size_bytes, rows=table.num_rows)


def write_rows(layout: Layout, stage: str, rows: Iterable[dict[str, Any]]) -> ManifestRef:
    """Store ``rows`` (mappings by column name; a missing key is null) as a manifest of ``stage``."""
    rows, schema = list(rows), SCHEMAS[stage]
    try:
        table = pa.Table.from_pylist(rows, schema=schema)
    except UnicodeEncodeError:  # JSON may bring half of a surrogate pair, which is no character
        table = pa.Table.from_pylist([_in_unicode(row) for row in rows], schema=schema)
    return write(layout, stage, table)


def _in_unicode(value: Any) -> Any:
    """``value`` with a question mark for whatever is no character, however deep."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {name: _in_unicode(item) for name, item in value.items()}
    return [_in_unicode(item) for item in value] if isinstance(value, list) else value


def path(layout: Layout, ref: ManifestRef) -> Path:
    """Where ``ref`` lies; raises ManifestMissing if it does not."""
    found = layout.stage(ref.stage, ref.sha256)
    if not found.is_file():
        raise ManifestMissing(
            f"the {ref.stage!r} manifest {ref.sha256[:12]} is gone from {str(layout.root)!r}: run again"
        )
    return found


def read(layout: Layout, ref: ManifestRef, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of ``ref``, or some of its columns."""
    return migration.read(path(layout, ref), columns)


def read_file(file: Path) -> pa.Table:
    """The rows of a Parquet file that is no stage output, such as one of a snapshot, however old it is."""
    return migration.read(file)


def read_all(layout: Layout, refs: Iterable[ManifestRef], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of several manifests of one stage, one after the other. ``refs`` must not be empty."""
    return pa.concat_tables([read(layout, ref, columns) for ref in refs])


def intact(layout: Layout, ref: ManifestRef | FileRef) -> bool:
    """Whether the file that ``ref`` names is there with the bytes it was written with."""
    found = layout.root / ref.path if isinstance(ref, FileRef) else layout.stage(ref.stage, ref.sha256)
    return found.is_file() and found.stat().st_size == ref.size_bytes and sha256_file(found) == ref.sha256


def file_ref(layout: Layout, file: Path) -> FileRef:
    """A reference to any file below the root."""
    return FileRef(path=str(file.relative_to(layout.root)), sha256=sha256_file(file), size_bytes=file.stat().st_size)
