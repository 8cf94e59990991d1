"""Rows of CSV, TSV, JSON Lines, JSON and Parquet files, one after the other, and lists of addresses as plain text."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ConfigError

log = logging.getLogger(__name__)

Record = Mapping[str, Any]
ADDRESS = "url"  # the one column of a plain text


def records(file: Path) -> Iterator[Record]:
    """The rows of ``file`` by column name. A row that cannot be read is left out, and counted in the log.

    Raises ConfigError if the file is no table that we know, or cannot be read.
    """
    if kind(file) not in READERS:
        raise ConfigError(f"{str(file)!r} is no table: its name must end in .{', .'.join(READERS)}; a folder of photos "
                          "is for the source folder")  # fmt: skip
    try:
        yield from READERS[kind(file)](file)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def names(file: Path) -> list[str]:
    """The columns of ``file``, in order. Raises ConfigError as ``records`` does."""
    try:
        match kind(file):
            case "parquet" | "pq":
                return list(pq.read_schema(file).names)
            case "csv" | "tsv":
                return _dialect(file)[0]
            case "txt":
                return [ADDRESS]
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None
    return list(dict.fromkeys(name for record in records(file) for name in record))


def kind(file: Path) -> str:
    """The ending of the name of ``file`` that says how to read it."""
    return file.name.lower().removesuffix(".gz").rpartition(".")[2]


def _unreadable(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"the table {str(file)!r} cannot be read: {error}")


@contextmanager
def _lines(file: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A text file, gzipped or not; a byte that is no UTF-8 becomes a question mark."""
    is_packed = file.name.lower().endswith(".gz")
    with (
        file.open("rb") as stored,
        gzip.open(stored) if is_packed else nullcontext(stored) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=newline) as lines,
    ):
        yield lines


def _dialect(file: Path) -> tuple[list[str], str]:
    """The columns of CSV or TSV, and the mark between cells: the one that the first line has most of."""
    with _lines(file, newline="") as lines:
        first = lines.readline()
        mark = max(",\t;|", key=first.count)
        lines.seek(0)
        return [name.strip() for name in next(csv.reader(lines, delimiter=mark), [])], mark


def _delimited(file: Path) -> Iterator[Record]:
    """Rows of CSV or TSV. Cells that a row lacks are missing, those beyond the columns are left out."""
    columns, mark = _dialect(file)
    bad = 0
    with _lines(file, newline="") as lines:
        reader = csv.reader(lines, delimiter=mark)
        next(reader, None)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error:
                bad += 1
                continue
            if row:
                yield dict(zip(columns, row, strict=False))
    _tell(file, bad)


def _json_lines(file: Path) -> Iterator[Record]:
    """Objects, one a line."""
    bad = 0
    with _lines(file) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, Mapping):
                yield record
            else:
                bad += 1
    _tell(file, bad)


def _json(file: Path) -> Iterator[Record]:
    """Objects in one list."""
    with _lines(file) as stream:
        try:
            listed = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the table {str(file)!r} is no JSON: {error}") from None
    found = listed if isinstance(listed, list) else []
    yield from (record for record in found if isinstance(record, Mapping))
    _tell(file, sum(not isinstance(record, Mapping) for record in found))


def _parquet(file: Path) -> Iterator[Record]:
    """Rows of Parquet, a few thousand at a time."""
    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


def _plain(file: Path) -> Iterator[Record]:
    """One address a line."""
    with _lines(file) as stream:
        yield from ({ADDRESS: line.strip()} for line in stream if line.strip())


def _tell(file: Path, bad: int) -> None:
    if bad:
        log.warning("table %r: %d rows cannot be read and are left out", str(file), bad)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "csv": _delimited, "tsv": _delimited, "jsonl": _json_lines, "ndjson": _json_lines, "json": _json,
    "parquet": _parquet, "pq": _parquet, "txt": _plain,
}  # fmt: skip
