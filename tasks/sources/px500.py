"""500px: a bounded walk along the results of its search. Off unless somebody turns it on.

The public API was closed in June 2018. The site's terms then forbade to keep photos for more than 24 hours, and to
download those that are not licensed for it; what is asked here is what its own pages ask. So the source refuses to work
until DARKROOM_PX500=on says that whoever runs it may.

Source: https://github.com/500px/legacy-api-documentation (terms_of_use.md, issue 258); px500_api.py for the endpoint.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from storage.settings import Settings
from tasks import web
from tasks.errors import ConfigError, PermanentSourceError
from tasks.sources.base import Ask, Forecast, Found, Query, Rendition, Seen, Sighting, Window, WindowRow
from tasks.sources.moving import Moving
from tasks.sources.px500_api import Api, PhotoGone, changed
from tasks.sources.px500_rows import (
    TERMS_URL,
    Json,
    forbidden,
    licence,
    listing,
    mapping,
    pages_of,
    pixels,
    renditions,
    text,
)

log = logging.getLogger(__name__)

IMAGE_HOSTS = frozenset({"drscdn.500px.org"})
PAGE = 30  # as the site's own pages ask; what it gives at most is not known
LIMIT = 1000  # photos of a query that names no limit
FAMILIAR = 50  # known photos in a row, after which a walk is back in what it has seen
DETOUR = 3  # nodes read for each photo that may be taken: what is left out must not make a walk endless
BYTES_PER_PX = 0.25  # of a JPEG as photo sites write it, for the forecast


@dataclass(frozen=True)
class Px500:
    """The source ``500px``."""

    name: str = "500px"
    stops_at_known: bool = True
    takes: frozenset[str] = frozenset({"text", "category", "label", "limit", "size"})

    def check(self, settings: Settings) -> None:
        """Raises ConfigError if nobody has said that 500px may be asked, or the way to it is not safe."""
        endpoint = urlsplit(settings.px500_url)
        if web.is_loopback(endpoint.hostname or ""):
            return
        if endpoint.scheme != "https":
            raise ConfigError(f"DARKROOM_PX500_URL must begin with https://, not {web.redact(settings.px500_url)!r}")
        if not settings.px500:
            raise ConfigError(
                "500px is off: its public API closed in 2018 and its terms forbid to keep photos for more than 24 "
                f"hours without permission ({TERMS_URL}); set DARKROOM_PX500=on if you have it"
            )

    def due(self, query: Query, asked: Sequence[WindowRow], now: datetime) -> list[Window | None]:
        """The whole query: its results cannot be divided by time."""
        return [None]

    def again(self, query: Query, seen: Sequence[Sighting], now: datetime, calls: int) -> tuple[list[Window], int]:
        """Nothing: its search cannot be asked for a time."""
        return [], 0

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """The photos that ``query`` lists first, ``query.limit`` or LIMIT at most.

        Ends early among ``known`` ones where the newest come first: in any other order new ones may stand behind them.
        """
        self.check(settings)
        asked_at = datetime.now(UTC)
        api, walk = Api(web.client(), settings), Walk(query, known)
        pages = pages_of(settings.px500_url)
        while walk.goes_on:
            photos = api.call("searchResource", walk.read, **arguments(query), first=PAGE, **walk.place)
            walk.is_newest_first = api.is_newest_first
            for photo in photos:
                walk.take(listing(photo, query, asked_at, pages), forbidden(photo))
        listings = list(walk.rows.values())[: walk.limit]
        _tell(query, walk, len(listings))
        row = {
            "source": self.name, "query_id": query.query_id, "uploaded_after": None, "uploaded_before": None,
            "asked_at": asked_at, "state": "listed" if walk.is_at_end else "sampled",
            "total": walk.total, "unique": len(listings), "lost": 0, "pages": walk.pages, "calls": api.calls,
        }  # fmt: skip
        return Found(listings, [row])

    def forecast(self, query: Query, window: Window | None, settings: Settings) -> Forecast:
        """What ``search`` would cost at most, judged by the first page."""
        self.check(settings)
        walk = Walk(query, frozenset())
        nodes = Api(web.client(), settings).call("searchResource", walk.read, **arguments(query), first=PAGE)
        photos = min(walk.total, walk.limit)
        areas = [
            (best["width"] or 0) * (best["height"] or 0)
            for best in (next(renditions(node, query.size), None) for node in nodes)
            if best is not None
        ]
        size_bytes = BYTES_PER_PX * sum(areas) / max(len(areas), 1)
        return Forecast(photos=photos, windows=1, calls=ceil(photos / PAGE), bytes=round(photos * size_bytes))

    def ask(self, settings: Settings) -> Ask:
        """Files come from 500px's own hosts, or from a stand-in's if that is what is asked."""
        endpoint = urlsplit(settings.px500_url)
        own = frozenset({endpoint.netloc}) if web.is_loopback(endpoint.hostname or "") else IMAGE_HOSTS
        return web.pictures(own | settings.allowed_image_hosts)

    def renew(self, photo_id: str, settings: Settings) -> list[Rendition]:
        """Freshly signed addresses; none of a photo that is gone, or that we may no longer take."""
        try:
            photo = self._photo(photo_id, settings)
        except PhotoGone:
            return []
        ladder = [] if forbidden(photo) else renditions(photo)
        return [{"label": rung["label"], "url": rung["url"]} for rung in ladder]

    def inspect(self, photo_id: str, settings: Settings) -> Seen:
        """What getPhotoById says. A site that no longer answers it as it did proves nothing: ``unknown``."""
        try:
            photo = self._photo(photo_id, settings)
        except PhotoGone as answer:
            return Seen("gone", str(answer), is_download_allowed=False)
        except PermanentSourceError as error:
            return Seen("unknown", f"getPhotoById: {error}")
        reason = forbidden(photo)
        return Seen(
            "gone" if reason in ("deleted", "private") else "present", f"getPhotoById: {reason or 'public'}",
            is_download_allowed=reason is None, **licence(photo),
        )  # fmt: skip

    def _photo(self, photo_id: str, settings: Settings) -> Json:
        """The photo as the site shows it now. Raises PhotoGone."""
        self.check(settings)

        def read(data: Json) -> Json:
            photo = mapping(data["getPhotoById"])
            if photo.get("id") != photo_id:
                raise changed("getPhotoById.id", "it answers with another photo than it was asked for")
            return photo

        return Api(web.client(), settings).call("getPhotoById", read, id=photo_id)


@dataclass
class Walk:
    """A walk along the results of one search: what it has taken, and whether it goes on."""

    query: Query
    known: frozenset[str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    after: str | None = None
    before: str | None = None  # where the page begins that was read last
    ahead: tuple[str | None, bool] | None = None  # what after and is_at_end are behind it, while one is read once more
    moving: Moving = field(default_factory=Moving)
    total: int = 0
    pages: int = 0
    nodes: int = 0
    familiar: int = 0  # known photos in a row, up to now or up to FAMILIAR
    is_at_end: bool = False
    is_newest_first: bool = True

    @property
    def limit(self) -> int:
        """Photos to take at most."""
        return self.query.limit or LIMIT

    @property
    def goes_on(self) -> bool:
        """Whether there is more to read, and reason to."""
        is_done = len(self.rows) >= self.limit or self.nodes >= DETOUR * max(self.limit, PAGE)
        is_back = self.is_newest_first and self.familiar >= FAMILIAR and not self.ahead
        return not (self.is_at_end or is_done or is_back)

    @property
    def place(self) -> dict[str, str]:
        """Where the next page begins; the first needs no words."""
        return {} if self.after is None else {"after": self.after}

    def read(self, data: Json) -> list[Json]:
        """The photos of one page that anybody may see; moves on, or back by a page if results have moved up."""
        found = mapping(data["searchResource"])
        edges, info = found.get("edges"), mapping(found.get("pageInfo"))
        if not isinstance(edges, list):
            raise changed("searchResource.edges", "its search lists nothing that can be read")
        nodes = [mapping(mapping(edge).get("node")) for edge in edges]
        photos = [node for node in nodes if node.get("__typename") == "Photo" and not node.get("isNsfw")]
        if not all(isinstance(photo.get("id"), str) and photo["id"] for photo in photos):
            raise changed("searchResource.edges.node.id", "its photos have no id")
        total, cursor = pixels(found.get("totalCount")), text(info.get("endCursor"))
        self.total = total or 0 if self.pages == 0 else self.total
        self.pages, self.nodes = self.pages + 1, self.nodes + len(nodes)
        is_at_end = not nodes or not info.get("hasNextPage") or not cursor or cursor == self.after
        ids = {str(photo["id"]) for photo in photos}
        self._turn(cursor, is_at_end, total is not None and self.moving.has_moved(total, ids, PAGE))
        hidden = [node for node in nodes if node.get("__typename") != "Photo" or node.get("isNsfw")]
        self.left_out.update("not_safe" if node.get("isNsfw") else "no_photo" for node in hidden)
        return photos

    def _turn(self, cursor: str | None, is_at_end: bool, has_moved: bool) -> None:
        """Go on behind ``cursor``; or to the page before, if results have moved up, and from there to where it was."""
        onward = (cursor, is_at_end)
        if self.ahead:
            onward, self.ahead = self.ahead, None
        else:
            if has_moved:
                onward, self.ahead = (self.before, False), onward
            self.before = self.after
        self.after, self.is_at_end = onward

    def take(self, row: dict[str, Any], reason: str | None) -> None:
        """Keep the row of a photo, once; ``reason``: why its picture may not be taken."""
        photo_id = row["photo_id"]
        if photo_id in self.rows:  # a page moves on when something is uploaded, and repeats what was before
            return
        self.rows[photo_id] = row
        self.left_out.update([reason] if reason else [])
        if self.familiar < FAMILIAR:
            self.familiar = self.familiar + 1 if photo_id in self.known else 0


def arguments(query: Query) -> dict[str, Any]:
    """``query`` in the words of searchResource, which wants a keyword even where a category says it all."""
    words: dict[str, Any] = {
        "keyword": query.text or query.category, "type": "TEXT", "resourceTypes": ["PHOTO"], "excludeNsfw": True,
    }  # fmt: skip
    return words | ({"categories": [query.category]} if query.category else {})


def _tell(query: Query, walk: Walk, unique: int) -> None:
    """Log what the walk brought, and what of it will have no picture."""
    log.info("search %s: total=%d unique=%d pages=%d", query.query_id, walk.total, unique, walk.pages)
    if walk.left_out:
        counts = " ".join(f"{name}={count}" for name, count in walk.left_out.most_common())
        log.info("search %s: photos that are not taken: %s", query.query_id, counts)
