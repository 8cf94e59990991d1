"""The journal of a dataset: each photo that a download has done with, at once, so that a killed batch loses only what
was in flight. One file for each batch, to which a row is appended as a line of JSON, until a manifest holds the rows.

It is scratch of the machine that downloads, and need not lie where the rest does. A file for each photo would cost as
much as the photo's own: making a file is dearer than filling it, and on ext4 dearer still after many were deleted.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from storage import ledger, manifest
from storage.layout import Layout, filling
from storage.records import SCHEMAS, ManifestRef

log = logging.getLogger(__name__)
Row = dict[str, Any]  # of records.SCHEMAS["attempts"]
IDENTITY = ("source", "photo_id", "attempt")
_MOMENTS = ("fetched_at", "next_try_at")


class Journal:
    """The rows of one batch; threads may share it, and so may processes."""

    def __init__(self, stream: BinaryIO, rows: list[Row]) -> None:
        self.rows = rows  # that earlier tries of the batch have kept
        self._stream, self._lock = stream, Lock()

    def note(self, row: Row) -> None:
        """Keep ``row`` until ``adopt`` or ``recover`` hands it over. Raises DiskFull."""
        line = b"\n" + json.dumps(row, default=_iso).encode()  # the break first: it may follow a torn line
        with self._lock, filling(Path(self._stream.name)):
            while line:
                line = line[self._stream.write(line) :]


@contextmanager
def keeping(layout: Layout, dataset: str, batch: str) -> Iterator[Journal]:
    """The journal of the batch of that digest, ours to write to; an empty one goes at the end. Raises DiskFull."""
    path = _path(layout, dataset, batch)
    with filling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab", buffering=0)
    with stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # nobody recovers what is being written
        try:
            yield Journal(stream, _read(path))
        finally:
            if not os.fstat(stream.fileno()).st_size:
                path.unlink(missing_ok=True)


def adopt(layout: Layout, dataset: str, batch: str, rows: Iterable[Row]) -> ManifestRef:
    """``rows``, those of ``batch``, as a manifest "attempts", in the ledger; only then does its journal go."""
    ref = _hand_over(layout, dataset, rows)
    _path(layout, dataset, batch).unlink(missing_ok=True)
    return ref


def is_left(layout: Layout, dataset: str) -> bool:
    """Whether ``recover`` would find anything."""
    return bool(_left(layout, dataset))


def recover(layout: Layout, dataset: str) -> int:
    """Hand over what killed downloads left; returns how many rows that were.

    A row that the ledger has already, because the run was killed between handing over and clearing, is there twice with
    the same attempt, which whoever reads the ledger takes for one.
    """
    files = _left(layout, dataset)
    rows = [row for file in files for row in _read(file)]
    if rows:
        _hand_over(layout, dataset, rows)
        log.info("journal of %s: %d photos of an interrupted download are kept", dataset, len(rows))
    for file in files:  # what cannot be read is a photo to be asked for again
        file.unlink(missing_ok=True)
    return len(rows)


def _hand_over(layout: Layout, dataset: str, rows: Iterable[Row]) -> ManifestRef:
    ref = manifest.write_rows(layout, "attempts", rows)
    ledger.adopt(layout, dataset, ref)
    return ref


def _path(layout: Layout, dataset: str, batch: str) -> Path:
    return layout.journal(dataset) / f"{batch}.jsonl"


def _left(layout: Layout, dataset: str) -> list[Path]:
    """The files that no download has open."""
    return [file for file in sorted(layout.journal(dataset).glob("*.jsonl")) if not _is_written(file)]


def _is_written(file: Path) -> bool:
    """Whether a download that lives has it open."""
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read(file: Path) -> list[Row]:
    """The rows of a file that can be read: not the last one of a process that was killed while writing it."""
    return [row for line in file.read_bytes().splitlines() if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        row: Row = json.loads(line)
        for name in _MOMENTS:
            row[name] = datetime.fromisoformat(row[name]) if row.get(name) else None
    except (ValueError, TypeError, AttributeError):
        return None
    return row if set(IDENTITY) <= set(row) <= set(SCHEMAS["attempts"].names) else None


def _iso(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a journal cannot hold a {type(value).__name__}")
