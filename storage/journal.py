"""The journal of a dataset: each photo that a download has done with, at once, so that a killed batch loses only what
was in flight. One small JSON file a row (no append: object stores), until a manifest holds the rows.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from storage import ledger, manifest
from storage.layout import Layout, write_bytes
from storage.records import SCHEMAS, ManifestRef

log = logging.getLogger(__name__)
Row = dict[str, Any]  # of records.SCHEMAS["attempts"]
IDENTITY = ("source", "photo_id", "attempt")
_MOMENTS = ("fetched_at", "next_try_at")


def note(layout: Layout, dataset: str, row: Row) -> None:
    """Keep ``row`` until ``adopt`` or ``recover`` hands it over. Raises DiskFull."""
    write_bytes(_path(layout, dataset, row), json.dumps(row, default=_iso).encode())


def noted(layout: Layout, dataset: str, photos: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows kept of these ``photos``: those of the same attempt."""
    found = (_read(_path(layout, dataset, photo)) for photo in photos)
    return [row for row in found if row is not None]


def adopt(layout: Layout, dataset: str, rows: Iterable[Row]) -> ManifestRef:
    """``rows`` as a manifest "attempts", in the ledger; only then are they taken from the journal."""
    rows = list(rows)
    ref = manifest.write_rows(layout, "attempts", rows)
    ledger.adopt(layout, dataset, ref)
    for row in rows:
        _path(layout, dataset, row).unlink(missing_ok=True)
    return ref


def recover(layout: Layout, dataset: str) -> int:
    """Hand over what killed downloads left; returns how many rows that were.

    A row that the ledger has already, because the run was killed between handing over and clearing, is there twice with
    the same attempt, which whoever reads the ledger takes for one.
    """
    files = sorted(layout.journal(dataset).glob("*.json"))
    rows = [row for row in map(_read, files) if row is not None]
    if rows:
        adopt(layout, dataset, rows)
        log.info("journal of %s: %d photos of an interrupted download are kept", dataset, len(rows))
    for file in files:  # what cannot be read is a photo to be asked for again
        file.unlink(missing_ok=True)
    return len(rows)


def _path(layout: Layout, dataset: str, row: Mapping[str, Any]) -> Path:
    """Where the row of one attempt lies; a digest, for an id may hold anything."""
    identity = json.dumps([row[name] for name in IDENTITY])
    return layout.journal(dataset) / f"{hashlib.sha256(identity.encode()).hexdigest()[:40]}.json"


def _read(file: Path) -> Row | None:
    """A row; None if there is none, or none that can be read."""
    try:
        row: Row = json.loads(file.read_bytes())
        for name in _MOMENTS:
            row[name] = datetime.fromisoformat(row[name]) if row.get(name) else None
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None
    return row if set(IDENTITY) <= set(row) <= set(SCHEMAS["attempts"].names) else None


def _iso(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a journal cannot hold a {type(value).__name__}")
