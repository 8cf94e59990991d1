"""The source ``table``: photos that a table names by their URLs, or by files that lie beside it.

Its columns are found by their usual names, or given by the query. A photo's id is the table's own, or else its URL
without signature and password, or its path within the table's folder; a digest of a cell that is neither and may hold a
password. A cell decides where a photo is fetched from, so
a URL must be plain http(s), may lead to its own host and to those that the query names, and a file must lie below the
folder of the table.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from storage.settings import Settings
from storage.signatures import anonymous, unsigned
from tasks import web
from tasks.errors import ConfigError
from tasks.sources.base import Ask, Found, Query, Window, degrees
from tasks.sources.imports import cells, tabular
from tasks.sources.imports.answers import answer
from tasks.sources.imports.files import inside, located, readable, url_within
from tasks.sources.imports.importing import Importing, found

log = logging.getLogger(__name__)

COLUMNS: dict[str, tuple[str, ...]] = {
    "photo_id": ("photo_id", "id", "image_id"),
    "image_url": ("image_url", "url", "image", "link"),
    "file": ("file", "path", "file_name", "filename", "image_path", "file_path"),
    "label": ("label", "class", "category"),
    "title": ("title", "caption", "text"),
    "tags": ("tags", "labels", "keywords", "hashtags"),
    "split": ("split", "subset", "partition"),
    "licence": ("licence", "license", "rights"),
    "licence_url": ("licence_url", "license_url"),
    "owner_id": ("owner_id", "owner", "author_id", "user_id"),
    "owner_name": ("owner_name", "author", "creator", "photographer", "username"),
    "page_url": ("page_url", "landing_url", "foreign_landing_url", "source_url"),
    "uploaded_at": ("uploaded_at", "uploaded", "date_uploaded"),
    "taken_at": ("taken_at", "taken", "date_taken"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng"),
    "listed_width": ("width",),
    "listed_height": ("height",),
}  # our name, and the names that it is known by; the first that a table has
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://|\S*$)|//")  # or what may be meant to be one
_HOST = re.compile(r"[\w.-]+")
_HOSTS = "hosts="  # begins the fragment, which no request carries, of a URL that may lead to further hosts


@dataclass(frozen=True)
class Table(Importing):
    """The source ``table``."""

    name: str = "table"
    takes: frozenset[str] = frozenset({"path", "label", "columns", "hosts", "limit"})

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """Every photo of the table, or the first ``limit`` of them. Of rows with the same id the first counts.

        Raises ConfigError if there is no such table, or it has no column to fetch photos by.
        """
        file, asked_at = located(query, settings), datetime.now(UTC)
        if not (file.is_file() or file.is_dir()):
            raise ConfigError(f"{str(file)!r} is a pipe, a socket or a device: save it as a file")
        reader = Reader(file.parent, matched(file, query), checked_hosts(query))
        rows: dict[str, dict[str, Any]] = {}
        for record in tabular.records(file):
            photo = reader.photo(record)
            if photo is not None and rows.setdefault(photo["photo_id"], photo) is not photo:
                reader.counts["repeated"] += 1
        listings = list(rows.values())[: query.limit]
        counts = " ".join(f"{name}={count}" for name, count in reader.counts.most_common())
        log.info("search %s: table %r: photos=%d %s", query.query_id, str(file), len(listings), counts)
        return found(listings, self.name, query, asked_at, len(rows))

    def ask(self, settings: Settings) -> Ask:
        """Fetches a URL from its own host, or where it may lead; reads a file as the source ``folder`` does."""

        def ask(url: str, etag: str | None = None, /) -> web.Answer:
            if url.startswith("file:"):
                return answer(url, etag, web.LIMITS.body_bytes)
            address, hosts = where(url)
            return web.pictures(hosts | settings.allowed_image_hosts)(address, etag)

        return ask


@dataclass
class Reader:
    """Rows of a table as rows of "listings". ``folder``: the table's own; ``columns``: its name for each of ours."""

    folder: Path
    columns: Mapping[str, str]
    hosts: Sequence[str]

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def photo(self, record: tabular.Record) -> dict[str, Any] | None:
        """One row; None if nothing in it could name a photo."""
        row = {name: record.get(column) for name, column in self.columns.items()}
        cell = cells.text(row.get("image_url")) or cells.text(row.get("file"))
        url = self.address(cell) if cell else None
        photo_id = cells.text(row.get("photo_id")) or (url and self.own_id(url, cell)) or (cell and unnamed(cell))
        if photo_id is None:
            self.counts["empty"] += 1
            return None
        if url is None:
            self.counts["without_address"] += 1
        photo_id = digest_id(photo_id) if is_mangled(photo_id) else plain(photo_id)
        return {"photo_id": photo_id, "image_url": url, **facts(row)}

    def address(self, cell: str) -> str | None:
        """The URL of what ``cell`` names: http(s), or a file below the folder of the table. None for all else."""
        if cell.startswith("//"):
            cell = f"https:{cell}"
        if _SCHEME.match(cell):
            return self._url(cell)
        path = inside(cell.removeprefix(f"{self.folder}/"))
        return url_within(self.folder, path) if path else None

    def _url(self, cell: str) -> str | None:
        """A plain URL, with the hosts that it may lead to behind it."""
        if not is_plain(cell):
            return None
        return hidden(urldefrag(cell).url) + (f"#{_HOSTS}{','.join(self.hosts)}" if self.hosts else "")

    def own_id(self, address: str, cell: str | None) -> str | None:
        """What a photo without an id is called: its URL, or its path within the folder."""
        if not address.startswith("file:"):
            return urldefrag(address).url
        path = inside((cell or "").removeprefix(f"{self.folder}/"))
        return readable(path) if path else None


def is_plain(cell: str) -> bool:
    """Whether ``cell`` is a URL that can be asked for."""
    try:
        parts = urlsplit(cell)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_mangled(cell: str) -> bool:
    """Whether ``cell`` may be an address with a user and a password, but in no form in which these can be told."""
    return bool(_SCHEME.match(cell)) and "@" in cell and not is_plain(cell)


def unnamed(cell: str) -> str:
    """What a photo is called whose ``cell`` is no address: as its cell, or by a digest if that may hold a password."""
    return digest_id(cell) if "@" in cell else cell


def digest_id(cell: str) -> str:
    """The id of a photo whose ``cell`` must not be told."""
    return f"cell-{hashlib.sha256(cell.encode(errors='backslashreplace')).hexdigest()[:32]}"


def hidden(url: str) -> str:
    """``url`` with stars for its user and password, if it has any: nobody is asked under such an address anyway."""
    there = anonymous(url)
    return url if there == url else there.replace("//", "//***@", 1)


def facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of "listings" that are what the table says, by our names for its columns."""
    texts = ("label", "title", "licence", "licence_url", "owner_id", "owner_name", "page_url")
    said: dict[str, Any] = {name: cells.text(row.get(name)) for name in texts}
    addresses = {name: plain(said[name]) for name in ("licence_url", "page_url", "owner_id")}
    addresses |= {name: None for name in ("licence_url", "page_url") if is_mangled(said[name] or "")}
    return said | addresses | {
        "licence": said["licence"] or "unstated",
        "owner_id": addresses["owner_id"] or said["owner_name"],  # who has no id is known by name
        "tags": cells.tags(row.get("tags")) + cells.split_tag(row.get("split")),
        "uploaded_at": cells.moment(row.get("uploaded_at")), "taken_at": cells.moment(row.get("taken_at")),
        "latitude": degrees(row.get("latitude"), 90), "longitude": degrees(row.get("longitude"), 180),
        "listed_width": cells.integer(row.get("listed_width")),
        "listed_height": cells.integer(row.get("listed_height")),
    }  # fmt: skip


def plain(cell: str | None) -> str | None:
    """``cell`` as it may be published: an address without signature and password, anything else as it is."""
    if not cell or not _ADDRESS.match(cell):
        return cell
    told = unsigned(cell)
    return told if "?" in cell or told != cell.partition("#")[0] else cell  # a fragment alone may tell two apart


def matched(file: Path, query: Query) -> dict[str, str]:
    """The table's column for each of ours that it has. Raises ConfigError, naming the columns that are there."""
    names = tabular.names(file)
    simple = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in reversed(names)}
    known_as = {ours: simple[known] for ours, usual in COLUMNS.items() for known in reversed(usual) if known in simple}
    if unknown := sorted(set(query.columns) - set(COLUMNS)):
        raise ConfigError(f"columns names {unknown}, which is none of ours: choose among {', '.join(COLUMNS)}")
    if missing := sorted(set(query.columns.values()) - set(names)):
        raise ConfigError(f"the table {str(file)!r} has no column {missing}; it has {names}")
    known_as |= query.columns
    if not {"image_url", "file"} & set(known_as):
        raise ConfigError(
            f"no column of {str(file)!r} is known to name photos: say which by columns: {{image_url: ...}} or "
            f"{{file: ...}}; it has {names}"
        )
    return known_as


def checked_hosts(query: Query) -> list[str]:
    """The hosts of ``query``; raises ConfigError for what is no mere name: only settings open a port."""
    if wrong := [host for host in query.hosts if not _HOST.fullmatch(host)]:
        raise ConfigError(
            f"hosts must be names such as 'img.example.org', not {wrong}; a host with a port, or of a private network, "
            "goes into DARKROOM_IMAGE_HOSTS"
        )
    return sorted({host.lower() for host in query.hosts})


def where(url: str) -> tuple[str, frozenset[str]]:
    """The address to ask, and the hosts that it may lead to: its own, and those that stand behind it.

    They are names without ports: what a table says may not open a port, nor an address of this network.
    """
    address, fragment = urldefrag(url)
    named: Iterable[str] = fragment.removeprefix(_HOSTS).split(",") if fragment.startswith(_HOSTS) else ()
    try:
        own = urlsplit(address).hostname or ""
    except ValueError:
        own = ""
    return address, frozenset({own, *named} - {""})
