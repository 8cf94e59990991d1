"""Flickr: photos.search with every fact taken from ``extras``, so that no photo costs a call of its own.

Source: https://www.flickr.com/services/api/ (pages flickr.photos.search, flickr.photos.licenses.getInfo and misc.urls).
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor, isfinite
from typing import Any, TypeVar
from urllib.parse import urlsplit

from storage.settings import Settings
from tasks import web
from tasks.errors import (
    ConfigError,
    CredentialsRejected,
    DarkroomError,
    PermanentSourceError,
    SourceChanged,
    SourceUnavailable,
)
from tasks.sources.base import LONG_EDGE_PX, Found, Query

log = logging.getLogger(__name__)
T = TypeVar("T")
Json = Mapping[str, Any]
Licences = Mapping[str, tuple[str, str]]  # id -> name, URL

FLICKR_PAGES = "https://www.flickr.com"
KEY_PAGE = f"{FLICKR_PAGES}/services/apps/create/"
LADDER = {
    "o": "Original", "6k": "X-Large 6K", "5k": "X-Large 5K", "4k": "X-Large 4K", "3k": "X-Large 3K", "k": "Large 2048",
    "h": "Large 1600", "l": "Large", "c": "Medium 800", "z": "Medium 640",
}  # fmt: skip
EXTRAS = ",".join(["license,date_upload,date_taken,owner_name,tags,geo,media", *(f"url_{size}" for size in LADDER)])
PER_PAGE = 500
PER_PAGE_BBOX = 250  # what Flickr gives at most where a query has a place
REACH = 4000  # results of one query; what lies behind repeats what was before
BEGAN = datetime(2004, 2, 10, tzinfo=UTC)  # Flickr's first day
TRIES = 4  # of a call that fails for a passing reason

_TRANSIENT = {0, 10, 105, 106, 201}
_KEY_REJECTED = {96, 97, 98, 99, 100}
_IMPOSSIBLE = {
    3: "the query has nothing that Flickr can search for: give it text, tags, a bbox or dates",
    20: "the query has more results than Flickr lists: narrow it by uploaded_after and uploaded_before",
    95: "Flickr wants https: set DARKROOM_FLICKR_URL accordingly",
}
_INT32 = 2**31


@dataclass(frozen=True)
class Flickr:
    """The source ``flickr``."""

    name: str = "flickr"

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
                f"DARKROOM_FLICKR_URL must begin with https:// to hide the key, not {settings.flickr_url!r}"
            )

    def search(self, query: Query, settings: Settings) -> Found:
        """Every photo that ``query`` finds, up to Flickr's reach of 4,000; the window row says how complete that is."""
        self.check(settings)
        asked_at = datetime.now(UTC)
        api = Api(web.client(), settings)
        licences = api.call("flickr.photos.licenses.getInfo", parse_licences)
        pages = Pages(query)
        rows: dict[str, dict[str, Any]] = {}
        while pages.goes_on(len(rows)):
            for photo in api.call("flickr.photos.search", pages.read, **arguments(query), page=str(pages.page)):
                row = listing(photo, query, licences, asked_at, pages_of(settings.flickr_url))
                rows.setdefault(row["photo_id"], row)
        listings = list(rows.values())[: query.limit]
        _tell(query, pages, listings)
        window = {
            "source": self.name, "query_id": query.query_id, "uploaded_after": query.uploaded_after,
            "uploaded_before": query.uploaded_before, "asked_at": asked_at, "total": pages.total,
            "unique": len(listings), "pages": pages.read_count, "calls": api.calls,
        }  # fmt: skip
        return Found(listings, [window])


@dataclass
class Api:
    """Flickr's REST endpoint. ``calls`` counts what was spent of the hourly quota."""

    client: web.Client
    settings: Settings
    calls: int = 0

    def call(self, method: str, read: Callable[[Json], T], **arguments: str) -> T:
        """What ``read`` finds in the reply to ``method``. Passing faults and unreadable replies are asked for again."""
        attempt = 0
        while True:
            answer = self._get(method, arguments)
            if (refusal := web.failure(answer)) and answer.outcome != "truncated":
                raise refusal
            try:
                return read(parse_reply(answer.body, method))
            except (SourceUnavailable, SourceChanged) as error:
                attempt += 1
                if attempt == TRIES:
                    raise _at(answer.url, error) from None
            self.client.sleep(self.client.limits.backoff(attempt - 1))

    def _get(self, method: str, arguments: Mapping[str, str]) -> web.Answer:
        """One call."""
        key = self.settings.flickr_api_key
        fixed = {"method": method, "format": "json", "nojsoncallback": "1"}
        secret = {"api_key": key.get_secret_value() if key else ""}
        self.calls += 1
        url = self.settings.flickr_url
        hosts = frozenset({urlsplit(url).netloc})
        return self.client.get(url, kind="api", hosts=hosts, params=fixed | dict(arguments) | secret)


@dataclass
class Pages:
    """Which page of a search comes next, and what the pages read so far said."""

    query: Query
    page: int = 0
    last_page: int = 1
    total: int = 0
    read_count: int = 0
    reach: int = field(init=False)

    def __post_init__(self) -> None:
        self.page = self.last_page = self.query.start_page
        self.reach = REACH // per_page(self.query)
        if self.page > self.reach:
            raise ConfigError(
                f"start_page must not exceed {self.reach}: Flickr lists {REACH} results, not {self.page} pages"
            )

    def goes_on(self, found: int) -> bool:
        """Whether the next page is there, wanted and within Flickr's reach."""
        is_wanted = self.query.max_pages is None or self.read_count < self.query.max_pages
        return is_wanted and found < (self.query.limit or REACH + 1) and self.page <= min(self.last_page, self.reach)

    @property
    def is_cut(self) -> bool:
        """Whether there were more pages, all of which Flickr keeps to itself."""
        return self.page > self.reach and self.last_page > self.reach

    def read(self, reply: Json) -> list[Json]:
        """The photos of the page that was asked for; moves on to the next."""
        listed = reply.get("photos")
        photos = listed.get("photo") if isinstance(listed, Mapping) else None
        if not isinstance(listed, Mapping) or not isinstance(photos, list):
            raise changed("flickr.photos.search", "photos.photo")
        if not all(isinstance(photo, Mapping) and text(photo.get("id")) for photo in photos):
            raise changed("flickr.photos.search", "photos.photo.id")
        if self.read_count == 0:
            self.total = integer(listed.get("total")) or 0
        self.last_page = integer(listed.get("pages")) or 0
        self.reach = REACH // (integer(listed.get("perpage")) or per_page(self.query))
        self.page += 1
        self.read_count += 1
        return photos


def per_page(query: Query) -> int:
    """The largest page that Flickr gives for ``query``."""
    return PER_PAGE if query.bbox is None else PER_PAGE_BBOX


def arguments(query: Query) -> dict[str, str]:
    """``query`` in the words of flickr.photos.search. Its dates are whole seconds and include both ends.

    A search by place alone would see the last twelve hours only; a first date, though it excludes nothing, lifts that.
    """
    after = query.uploaded_after or (BEGAN if query.bbox else None)
    words = {
        "text": query.text, "tags": ",".join(query.tags), "tag_mode": "all" if query.tags else None,
        "bbox": ",".join(map(str, query.bbox)) if query.bbox else None, "license": ",".join(query.licences),
        "min_upload_date": str(ceil(after.timestamp())) if after else None,
        "max_upload_date": str(floor(query.uploaded_before.timestamp())) if query.uploaded_before else None,
        "media": "photos", "content_types": "0",  # photographs: no screenshots, no drawings
        "safe_search": "1", "sort": "date-posted-desc", "extras": EXTRAS, "per_page": str(per_page(query)),
    }  # fmt: skip
    return {name: value for name, value in words.items() if value}


def parse_reply(body: bytes, method: str) -> Json:
    """The reply in ``body``; raises what its error code says, and SourceChanged if it is no reply at all."""
    try:
        reply = json.loads(body)
    except ValueError:
        raise changed(method, "the whole body") from None
    if not isinstance(reply, Mapping) or reply.get("stat") not in ("ok", "fail"):
        raise changed(method, "stat")
    if reply["stat"] == "fail":
        raise fault(integer(reply.get("code")), str(reply.get("message", "")), method)
    return reply


def fault(code: int | None, message: str, method: str) -> DarkroomError:
    """The exception for an error ``code``: retry, get another key, ask otherwise, or give up."""
    if code in _TRANSIENT or "not currently available" in message:
        return SourceUnavailable(f"Flickr's {method} is out of order for a moment ({code}: {message}): run again later")
    if code in _KEY_REJECTED:
        what = "expired" if "expired" in message else "malformed" if "format" in message else "not accepted"
        return CredentialsRejected(f"Flickr says that FLICKR_API_KEY is {what} ({code}): get a valid key at {KEY_PAGE}")
    if code in _IMPOSSIBLE:
        return ConfigError(_IMPOSSIBLE[code])
    return PermanentSourceError(
        f"Flickr refuses {method} ({code}: {message}): asking again will not help, change the query"
    )


def changed(method: str, place: str) -> SourceChanged:
    """The exception for a reply in which ``place`` is not what the documentation says."""
    hint = "check DARKROOM_FLICKR_URL, or update Darkroom"
    return SourceChanged(f"Flickr's {method} answered, but {place!r} cannot be read: {hint}", field=place)


def _at(url: str, error: DarkroomError) -> DarkroomError:
    """``error`` with the URL that it happened at, if it is one that tells."""
    if isinstance(error, SourceChanged):
        error.url = url
    return error


def parse_licences(reply: Json) -> Licences:
    """(name, URL) of every licence that Flickr knows now, by id: names and ids have changed before."""
    try:
        return {str(item["id"]): (str(item["name"]), str(item["url"])) for item in reply["licenses"]["license"]}
    except (KeyError, TypeError):
        raise changed("flickr.photos.licenses.getInfo", "licenses.license") from None


def pages_of(endpoint: str) -> str:
    """Where photos have their pages: Flickr's, or those of a stand-in, whose photos are none of Flickr's."""
    address = urlsplit(endpoint)
    return FLICKR_PAGES if address.hostname == "api.flickr.com" else f"{address.scheme}://{address.netloc}"


def listing(
    photo: Json, query: Query, licences: Licences, observed_at: datetime, pages: str = FLICKR_PAGES
) -> dict[str, Any]:
    """One row of ``listings``. A photo whose owner shows no picture has a row without ``image_url``."""
    photo_id, owner = text(photo["id"]), text(photo.get("owner"))
    ladder = list(renditions(photo, query.size))
    best = ladder[0] if ladder else {}
    has_place = bool(integer(photo.get("accuracy")))
    return {
        "source": "flickr", "photo_id": photo_id, "query_id": query.query_id, "observed_at": observed_at,
        "owner_id": owner, "owner_name": text(photo.get("ownername")), "title": text(photo.get("title")),
        "tags": (text(photo.get("tags")) or "").split(), "label": query.label, **licence(photo, licences),
        "page_url": f"{pages}/photos/{owner}/{photo_id}/" if owner else None,
        "image_url": best.get("url"), "size_label": best.get("label"),
        "listed_width": best.get("width"), "listed_height": best.get("height"),
        "uploaded_at": unix_time(photo.get("dateupload")), "taken_at": taken_at(photo),
        "latitude": degrees(photo.get("latitude"), 90) if has_place else None,
        "longitude": degrees(photo.get("longitude"), 180) if has_place else None,
        "fallbacks": [{"label": rung["label"], "url": rung["url"]} for rung in ladder[1:]],
    }  # fmt: skip


def renditions(photo: Json, size: str) -> Iterator[dict[str, Any]]:
    """label, url, width and height of what the photo is offered in, largest first, nothing larger than ``size``.

    The URLs are taken as they are: from 1600 px up each has a secret of its own.
    """
    for letter, label in LADDER.items():
        url = photo.get(f"url_{letter}")
        width, height = integer(photo.get(f"width_{letter}")), integer(photo.get(f"height_{letter}"))
        long_px = LONG_EDGE_PX.get(label) or max(width or _INT32, height or _INT32)
        if isinstance(url, str) and url and (size == "original" or long_px <= LONG_EDGE_PX[size]):
            yield {"label": label, "url": url, "width": width, "height": height}


def licence(photo: Json, licences: Licences) -> dict[str, str | None]:
    """Name and URL of the photo's licence; ``unknown:<id>`` if Flickr does not explain it, ``unstated`` without one."""
    licence_id = text(photo.get("license"))
    if licence_id is None:
        return {"licence": "unstated", "licence_url": None}
    name, url = licences.get(licence_id, (f"unknown:{licence_id}", ""))
    return {"licence": name, "licence_url": url or None}


def text(value: Any) -> str | None:
    """A text that Flickr gives plainly, as a number, or wrapped in ``_content``; None for nothing."""
    if isinstance(value, Mapping):
        value = value.get("_content")
    return None if value is None or value == "" else str(value)


def integer(value: Any) -> int | None:
    """A number that Flickr gives as a number or as text; None for anything else, and beyond 32 bits."""
    found = re.fullmatch(r"-?\d{1,10}", str(value))
    return int(found[0]) if found and abs(int(found[0])) < _INT32 else None


def degrees(value: Any, bound: int) -> float | None:
    """An angle between -``bound`` and ``bound``, or None."""
    try:
        angle_deg = float(value)
    except (TypeError, ValueError):
        return None
    return angle_deg if isfinite(angle_deg) and abs(angle_deg) <= bound else None


def unix_time(value: Any) -> datetime | None:
    """The moment that many seconds after 1970; None for zero and for what is no number."""
    seconds = integer(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds and seconds > 0 else None


def taken_at(photo: Json) -> datetime | None:
    """What the camera's clock said (its zone is unknown; written as if UTC). None where Flickr made the date up."""
    written = text(photo.get("datetaken")) or ""
    if integer(photo.get("datetakenunknown")) or written.startswith("0000"):
        return None
    try:
        return datetime.strptime(written, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _tell(query: Query, pages: Pages, listings: list[dict[str, Any]]) -> None:
    """Log what the search brought and what it did not."""
    log.info("search %s: total=%d unique=%d pages=%d", query.query_id, pages.total, len(listings), pages.read_count)
    if pages.is_cut:
        log.warning(
            "search %s: Flickr has %d results but lists only the newest %d, of which %d are different: the others are "
            "lost; narrow the query by uploaded_after and uploaded_before",
            query.query_id, pages.total, REACH, len(listings),
        )  # fmt: skip
    unknown = Counter(row["licence"] for row in listings if row["licence"].startswith("unknown:"))
    if unknown:
        log.warning("search %s: licences that Flickr does not explain: %s", query.query_id, dict(unknown))
