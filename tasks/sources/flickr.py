"""Flickr: photos.search with every fact taken from ``extras``, so that no photo costs a call of its own.

A search lists 4,000 results and then repeats itself, so queries are asked in windows of upload time (windows.py).

Source: https://www.flickr.com/services/api/ (pages flickr.photos.search and flickr.photos.getInfo).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil, floor, log2
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from storage.catalog import JPEG_BYTES_PER_PIXEL
from storage.settings import Settings
from tasks import web
from tasks.errors import ConfigError, CredentialsRejected
from tasks.sources import windows
from tasks.sources.base import SECOND, Ask, Forecast, Found, Query, Rendition, Seen, Sighting, Window, WindowRow
from tasks.sources.flickr_api import KEY_PAGE, TRIES, Api, PhotoGone, TooManyResults, changed, parse_licences
from tasks.sources.flickr_rows import LADDER, Json, Licences, integer, licence, listing, pages_of, text
from tasks.sources.moving import Moving

log = logging.getLogger(__name__)

IMAGE_HOSTS = frozenset({"live.staticflickr.com"})
EXTRAS = ",".join(["license,date_upload,date_taken,owner_name,tags,geo,media", *(f"url_{size}" for size in LADDER)])
PER_PAGE = 500
PER_PAGE_BBOX = 250  # what Flickr gives at most where a query has a place
OWN_HOST = "api.flickr.com"
MOST_CALLS_PER_HOUR = 3450
REACH = 4000  # results of one query; what lies behind repeats what was before
BEGAN = datetime(2004, 2, 10, tzinfo=UTC)  # Flickr's first day
LICENCES_FOR = timedelta(hours=1)
_LICENCES: WeakKeyDictionary[web.Client, dict[str, tuple[datetime, Licences]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Flickr:
    """The source ``flickr``."""

    name: str = "flickr"
    stops_at_known: bool = False
    takes: frozenset[str] = frozenset({
        "text", "tags", "bbox", "label", "licences", "uploaded_after", "uploaded_before", "limit", "start_page",
        "max_pages", "size",
    })  # fmt: skip

    def check(self, settings: Settings) -> None:
        """Raises CredentialsRejected if there is no key, ConfigError if it would travel in the clear."""
        if settings.flickr_api_key is None or not settings.flickr_api_key.get_secret_value().strip():
            raise CredentialsRejected(
                f"Flickr needs an API key: get one at {KEY_PAGE} and set FLICKR_API_KEY to it, "
                "or keep it in a Prefect Secret block called flickr-api-key"
            )
        endpoint = urlsplit(settings.flickr_url)
        if endpoint.scheme != "https" and not web.is_loopback(endpoint.hostname or ""):
            raise ConfigError(
                f"DARKROOM_FLICKR_URL must begin with https:// to hide the key, not {web.redact(settings.flickr_url)!r}"
            )
        if endpoint.hostname == OWN_HOST and settings.api_calls_per_hour > MOST_CALLS_PER_HOUR:
            raise ConfigError(
                f"DARKROOM_API_CALLS_PER_HOUR must not exceed {MOST_CALLS_PER_HOUR:,}: Flickr wants less than 3,600 an "
                f"hour of one key, bursts included, not {settings.api_calls_per_hour:,}"
            )

    def due(self, query: Query, asked: Sequence[WindowRow], now: datetime) -> list[Window | None]:
        """The windows that the ledger does not settle; a query of some pages or photos only is asked anew, as one."""
        if is_sample(query):
            return [None]
        return list(windows.due(span(query, now), asked, now))

    def again(self, query: Query, seen: Sequence[Sighting], now: datetime, calls: int) -> tuple[list[Window], int]:
        """Windows of photos that were last seen long ago; of a query for some photos only the audit looks again."""
        return ([], 0) if is_sample(query) else windows.stale(seen, now, calls, per_page(query))

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """Every photo of ``window``, or the parts that it must be divided into; of a query for some, the newest."""
        self.check(settings)
        search = Search(Api(web.client(), settings), query, datetime.now(UTC))
        if window is None and (query.limit or 0) > REACH:
            found = search.newest()
        elif window is None:
            found = search.pages_asked_for()
        else:
            found = search.whole(window)
        _tell(query, found)
        return found

    def forecast(self, query: Query, window: Window | None, settings: Settings) -> Forecast:
        """What ``search`` would cost, for one call."""
        self.check(settings)
        search = Search(Api(web.client(), settings), query, datetime.now(UTC))
        return search.forecast(window)

    def ask(self, settings: Settings) -> Ask:
        """Fetches from Flickr's image host."""
        hosts = IMAGE_HOSTS | settings.allowed_image_hosts
        return web.pictures(hosts)

    def renew(self, photo_id: str, settings: Settings) -> list[Rendition]:
        """None: Flickr's addresses do not expire."""
        return []

    def inspect(self, photo_id: str, settings: Settings) -> Seen:
        """What flickr.photos.getInfo says; a photo that is deleted or private is "not found"."""
        self.check(settings)
        api = Api(web.client(), settings)
        try:
            photo = api.call("flickr.photos.getInfo", _photo_info, photo_id=photo_id)
        except PhotoGone as answer:
            return Seen("gone", proof=str(answer))
        usage = photo.get("usage")
        may = integer(usage.get("candownload")) if isinstance(usage, Mapping) else None
        return Seen(
            "present", proof="flickr.photos.getInfo: ok", is_download_allowed=may != 0, **licence(photo, licences(api))
        )


def _photo_info(reply: Json) -> Json:
    photo = reply.get("photo")
    if not isinstance(photo, Mapping):
        raise changed("flickr.photos.getInfo", "photo")
    return photo


def is_sample(query: Query) -> bool:
    """Whether ``query`` wants some of what there is, and not all of it."""
    return query.limit is not None or query.max_pages is not None or query.start_page > 1


def span(query: Query, now: datetime) -> Window:
    """All upload times that ``query`` is about, in whole seconds."""
    after = query.uploaded_after or BEGAN
    before = min(query.uploaded_before or now, now)
    after = after.replace(microsecond=0) + (SECOND if after.microsecond else timedelta(0))
    return Window(after=after, before=max(after, before.replace(microsecond=0) + SECOND))


def licences(api: Api) -> Licences:
    """The licences that Flickr knows now; asked once an hour."""
    kept, now, url = _LICENCES.setdefault(api.client, {}), datetime.now(UTC), api.settings.flickr_url
    if url not in kept or not now - LICENCES_FOR < kept[url][0] <= now:
        kept[url] = now, api.call("flickr.photos.licenses.getInfo", parse_licences)
    return kept[url][1]


@dataclass
class Search:
    """One search: reads pages, and turns them into rows of the ledger."""

    api: Api
    query: Query
    asked_at: datetime
    counted: int = 0  # calls that stand in a window row already

    def pages_asked_for(self) -> Found:
        """The pages from start_page on, max_pages of them, up to ``limit`` photos: newest first."""
        pages = Pages(self.query)
        rows = self.read(pages, arguments(self.query), most=self.query.limit)
        listed = list(rows.values())[: self.query.limit]
        window = span(self.query, self.asked_at)
        return Found(listed, [self.row(window, "sampled", pages, listed)])

    def newest(self) -> Found:
        """The newest ``limit`` photos, where that is more than one search lists: window after window into the past."""
        left, rows, seen = [span(self.query, self.asked_at)], dict[str, dict[str, Any]](), list[dict[str, Any]]()
        while left and len(rows) < (self.query.limit or 0):
            found = self.whole(left.pop(0))
            left = found.parts + left
            seen += [row | {"state": "sampled"} for row in found.windows]
            rows |= {row["photo_id"]: row for row in found.listings}
        return Found(list(rows.values())[: self.query.limit], seen)

    def whole(self, window: Window) -> Found:
        """All photos of ``window``; or its parts, if it holds too many to be listed and is long enough to divide."""
        pages, asked = Pages(self.query), arguments(self.query, window)
        try:
            rows = self.read(pages, asked, most_total=windows.TARGET if windows.parts(window, REACH) else None)
        except TooManyResults:
            rows, pages.total = {}, max(pages.total, REACH + 1)
        if parts := windows.parts(window, pages.total) if pages.total > windows.TARGET else []:
            return Found([], [self.row(window, "divided", pages, [])], parts)
        if pages.is_cut_off:
            self.crowded(rows, pages, asked)
        listed = list(rows.values())
        return Found(listed, [self.row(window, "holey" if pages.has_holes else "listed", pages, listed)])

    def crowded(self, rows: dict[str, dict[str, Any]], pages: "Pages", asked: Mapping[str, str]) -> None:
        """Add to ``rows`` what a window hides that is too short to divide: by licence, and then from both ends."""
        for licence_id in self.query.licences or licences(self.api):
            asked_so = {**asked, "license": licence_id}
            if self.add(rows, pages, asked_so).is_cut_off:
                self.add(rows, pages, {**asked_so, "sort": "date-posted-asc"})

    def add(self, rows: dict[str, dict[str, Any]], pages: "Pages", asked: Mapping[str, str]) -> "Pages":
        """The pages of one more search; adds what it finds to ``rows``, and how it went to ``pages``."""
        more = Pages(self.query)
        rows |= self.read(more, asked)
        pages.read_count += more.read_count
        pages.has_holes |= more.has_holes
        return more

    def read(
        self, pages: "Pages", asked: Mapping[str, str], most: int | None = None, most_total: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Rows by photo_id of the pages of one search; ends early at ``most`` rows, or if it has more than
        ``most_total`` results.
        """
        known, address = licences(self.api), pages_of(self.api.settings.flickr_url)
        rows: dict[str, dict[str, Any]] = {}
        while pages.goes_on() and (most is None or len(rows) < most):
            for photo in self.api.call("flickr.photos.search", pages.read, **asked, page=str(pages.page)):
                row = listing(photo, self.query, known, self.asked_at, address)
                rows.setdefault(row["photo_id"], row)
            if most_total is not None and pages.total > most_total:
                break
        return rows

    def row(self, window: Window, state: str, pages: "Pages", listed: Sequence[object]) -> dict[str, Any]:
        """The row of the window ledger."""
        return {
            "source": "flickr", "query_id": self.query.query_id, "uploaded_after": window.after,
            "uploaded_before": window.before, "asked_at": self.asked_at, "state": state, "total": pages.total,
            "unique": len(listed), "lost": max(0, pages.total - len(listed)) if state in ("listed", "holey") else 0,
            "pages": pages.read_count, "calls": self._spent(),
        }  # fmt: skip

    def _spent(self) -> int:
        """Calls since the last window row."""
        spent, self.counted = self.api.calls - self.counted, self.api.calls
        return spent

    def forecast(self, window: Window | None) -> Forecast:
        """What one page tells: how many photos there are, what listing them costs, and how large they are."""
        pages = Pages(self.query.model_copy(update={"max_pages": 1}))
        photos = list(self.read(pages, arguments(self.query, window)).values())
        size = per_page(self.query)
        total = min(pages.total, self.query.limit or pages.total, (self.query.max_pages or pages.total) * size)
        if window is None:
            total, count = (min(total, REACH), 1) if not self.query.limit else (total, ceil(total / windows.TARGET))
        else:
            count = 2 ** ceil(log2(max(1, total / windows.TARGET)))
        pixels = [(row["listed_width"] or 0) * (row["listed_height"] or 0) for row in photos if row["image_url"]]
        mean_bytes = JPEG_BYTES_PER_PIXEL * sum(pixels) / max(1, len(photos))
        asked_apart = sum(row["is_open"] is False for row in photos) / max(1, len(photos))
        listing_calls = ceil(total / size + count / 2) + (count > 1)  # the last page of a window is half full
        calls = listing_calls + 1 + round(asked_apart * total)  # one for the licences
        size_bytes = round(mean_bytes * total)
        return Forecast(photos=total, windows=count, calls=calls, bytes=size_bytes, spent=self.api.calls)


@dataclass
class Pages:
    """Which page of a search comes next, and what the pages read so far said."""

    query: Query
    page: int = 0
    last_page: int = 1
    total: int = 0
    read_count: int = 0
    empty_pages: int = 0
    has_holes: bool = False
    ahead: int = 0  # where to go on, while the page before is read once more
    moving: Moving = field(default_factory=Moving)
    reach: int = field(init=False)

    def __post_init__(self) -> None:
        self.page = self.last_page = self.query.start_page
        self.reach = REACH // per_page(self.query)
        if self.page > self.reach:
            raise ConfigError(
                f"start_page must not exceed {self.reach}: Flickr lists {REACH} results, not {self.page} pages"
            )

    def goes_on(self) -> bool:
        """Whether the next page is there, wanted and within Flickr's reach."""
        is_wanted = self.query.max_pages is None or self.read_count < self.query.max_pages
        return is_wanted and self.page <= min(self.last_page, self.reach)

    @property
    def is_cut_off(self) -> bool:
        """Whether there is more than Flickr lists of one search, as it counts or as full pages show."""
        return self.total > REACH or self.last_page > self.reach

    def read(self, reply: Json) -> list[Json]:
        """The photos of the page that was asked for; moves on to the next, or to the one before if results moved up.

        Behind a full page there may be more, whatever the site counts: only a page that is not full is the last.
        """
        listed = reply.get("photos")
        photos = listed.get("photo") if isinstance(listed, Mapping) else None
        if not isinstance(listed, Mapping) or not isinstance(photos, list):
            raise changed("flickr.photos.search", "photos.photo")
        if not all(isinstance(photo, Mapping) and text(photo.get("id")) for photo in photos):
            raise changed("flickr.photos.search", "photos.photo.id")
        total, last_page = integer(listed.get("total")), integer(listed.get("pages"))
        if total is None or last_page is None or (photos and not total):
            raise changed("flickr.photos.search", "photos.total, photos.pages")
        if self.read_count == 0:
            self.total, self.last_page = total, last_page
        self.last_page = max(self.last_page, last_page)  # a search that shrinks ends with an empty page
        if not photos and self.page < self.last_page:
            self.empty_pages += 1
            if self.empty_pages % TRIES:
                raise changed("flickr.photos.search", f"photos.photo of page {self.page}, which is empty,")
            self.has_holes = True
        size = integer(listed.get("perpage")) or per_page(self.query)
        self.reach = REACH // size
        self.read_count += 1
        has_moved = self.moving.has_moved(total, {str(photo["id"]) for photo in photos}, size)
        self.has_holes |= self.moving.may_miss
        if len(photos) >= size and self.moving.is_new:  # one that repeats what was before ends the search
            self.last_page = max(self.last_page, self.page + 1)
        is_back = has_moved and self.query.max_pages is None  # whoever wants so many pages gets these, and no other
        self.page, self.ahead = (self.page - 1, self.page + 1) if is_back else (self.ahead or self.page + 1, 0)
        return photos


def per_page(query: Query) -> int:
    """The largest page that Flickr gives for ``query``."""
    return PER_PAGE if query.bbox is None else PER_PAGE_BBOX


def arguments(query: Query, window: Window | None = None) -> dict[str, str]:
    """``query`` in the words of flickr.photos.search, within ``window``, or else within its own dates.

    Flickr's dates are whole seconds and include both ends. A search by place alone would see the last twelve hours
    only; a first date, though it excludes nothing, lifts that.
    """
    after = window.after if window else query.uploaded_after or (BEGAN if query.bbox else None)
    before = window.before - SECOND if window else query.uploaded_before
    words = {
        "text": query.text, "tags": ",".join(query.tags), "tag_mode": "all" if query.tags else None,
        "bbox": ",".join(map(str, query.bbox)) if query.bbox else None, "license": ",".join(query.licences),
        "min_upload_date": str(ceil(after.timestamp())) if after else None,
        "max_upload_date": str(floor(before.timestamp())) if before else None,
        "media": "photos", "content_types": "0",  # photographs: no screenshots, no drawings
        "safe_search": "1", "sort": "date-posted-desc", "extras": EXTRAS, "per_page": str(per_page(query)),
    }  # fmt: skip
    return {name: value for name, value in words.items() if value}


def _tell(query: Query, found: Found) -> None:
    """Log what the search brought and what it did not."""
    for row in found.windows:
        log.info(
            "search %s %s..%s: %s total=%d unique=%d lost=%d pages=%d calls=%d", query.query_id,
            row["uploaded_after"].isoformat(), row["uploaded_before"].isoformat(), row["state"], row["total"],
            row["unique"], row["lost"], row["pages"], row["calls"],
        )  # fmt: skip
    unknown = Counter(row["licence"] for row in found.listings if row["licence"].startswith("unknown:"))
    if unknown:
        log.warning("search %s: licences that Flickr does not explain: %s", query.query_id, dict(unknown))
