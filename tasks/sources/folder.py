"""The source ``folder``: photos that lie on this machine, in any of the LAYOUTS that data sets come in.

A photo's id is its path within the folder; one of many in a file has its number behind it: ``data_batch_1.bin#00042``.
What the folder does not say is not made up: nobody owns the photos, and their licence is unstated.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from storage.settings import Settings
from tasks import web
from tasks.errors import ConfigError
from tasks.sources.base import Ask, Found, Query, Window
from tasks.sources.imports import cifar, idx, imet, instagram, tree
from tasks.sources.imports.answers import answer
from tasks.sources.imports.files import located
from tasks.sources.imports.importing import Importing, found

log = logging.getLogger(__name__)

LAYOUTS: tuple[ModuleType, ...] = (cifar, idx, imet, instagram, tree)  # the first that is there; a tree is always


@dataclass(frozen=True)
class Folder(Importing):
    """The source ``folder``."""

    name: str = "folder"
    takes: frozenset[str] = frozenset({"path", "label", "limit"})

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """Every photo of the folder; with a limit, that many drawn from all of it, the same ones each time.

        Raises ConfigError if there is no such folder, or it is not what its files promise.
        """
        folder, asked_at = opened(query, settings), datetime.now(UTC)
        layout = layout_of(folder)
        rows: dict[str, dict[str, Any]] = {}
        repeated = sum(rows.setdefault(photo["photo_id"], photo) is not photo for photo in layout.photos(folder))
        if not rows:
            instagram.check_lists(folder)
        listings = drawn(rows, query.limit)
        log.info(
            "search %s: folder %r read as %s: photos=%d taken=%d repeated=%d", query.query_id, str(folder),
            layout.__name__.rpartition(".")[2], len(rows), len(listings), repeated,
        )  # fmt: skip
        return found(listings, self.name, query, asked_at, len(rows))

    def ask(self, settings: Settings) -> Ask:
        """Reads the file; no link, no device, nothing beyond the size that a download may have."""
        return lambda url, etag=None: answer(url, etag, web.LIMITS.body_bytes)


def opened(query: Query, settings: Settings) -> Path:
    """The folder of ``query``; raises ConfigError if it is none or cannot be read."""
    folder = located(query, settings)
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is a file: unpack it if it is an archive; a table is for the source table")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"the folder {str(folder)!r} cannot be read: make it readable for whoever runs this")
    return folder


def layout_of(folder: Path) -> Any:
    """The module that reads ``folder``."""
    return next(layout for layout in LAYOUTS if layout.is_here(folder))


def drawn(rows: dict[str, dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """``limit`` of ``rows``, by the hash of their ids: the first ones of a tree would be all of one class."""
    if limit is None or limit >= len(rows):
        return list(rows.values())
    chosen = sorted(rows, key=lambda photo_id: hashlib.sha256(photo_id.encode()).digest())[:limit]
    return [rows[photo_id] for photo_id in chosen]
