"""Which photos a search returns, in which order, and which of them stand on a page.

Source: flickr.com/services/api/flickr.photos.search.html, and behaviour that clients have reported: a search shows no
more than its first 4,000 rows and then repeats itself, totals drift, narrow windows also return neighbours.
"""

import math
import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from threading import Lock

from tasks.sources.standin.facts import Photo
from tasks.sources.standin.words import normal_tag

Arguments = Mapping[str, str]
Condition = Callable[[Photo], bool]

MAX_ROWS = 4_000
MAX_PER_PAGE = 500
MAX_PER_PAGE_GEO = 250
MAX_ALL_TAGS = 20
FUZZ_WINDOW = timedelta(minutes=5)
FUZZ_REACH = timedelta(hours=1)
EARTH_RADIUS_KM = 6371.0
WORD = re.compile(r"[^\W_]+")

GEO_ARGUMENTS = ("bbox", "has_geo", "lat", "lon", "woe_id", "place_id")
LIMITING_ARGUMENTS = (
    "text",
    "tags",
    "user_id",
    "min_upload_date",
    "max_upload_date",
    "min_taken_date",
    "max_taken_date",
)
SEARCH_ARGUMENTS = (*LIMITING_ARGUMENTS, *GEO_ARGUMENTS, "group_id", "machine_tags", "is_commons", "in_gallery")


class ApiFailureError(Exception):
    """The API's ``{"stat": "fail"}`` with ``code`` and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class SearchHabits:
    """How truthful the search is.

    offset_mode: past 4,000 rows ``repeat`` serves the last window again, ``error`` answers code 20.
    has_drift: totals differ by up to 2 % from page to page. fuzz: share of a neighbouring hour's rows that a window
    narrower than 5 minutes also returns. index_delay_s: how long after its upload a photo is found.
    """

    offset_mode: str = "repeat"
    has_drift: bool = False
    fuzz: float = 0.0
    index_delay_s: float = 0.0


@dataclass(frozen=True)
class Page:
    """One page of rows; ``number`` and ``total`` as the answer states them."""

    number: int
    per_page: int
    total: int
    photos: list[Photo]

    @property
    def pages(self) -> int:
        """How many pages ``total`` rows fill."""
        return math.ceil(self.total / self.per_page)


def search(photos: Iterable[Photo], args: Arguments, habits: SearchHabits, now: datetime) -> Page:
    """One page of the photos that ``args`` ask for. Raises ApiFailureError (codes 1, 2, 3, 18, 20)."""
    if not any(args.get(name) for name in SEARCH_ARGUMENTS):
        raise ApiFailureError(
            3, "Parameterless searches have been disabled. Please use flickr.photos.getRecent instead."
        )
    indexed_before = now - timedelta(seconds=habits.index_delay_s)
    visible = [photo for photo in photos if photo.is_listed and photo.uploaded_at <= indexed_before]
    user = args.get("user_id")
    if user and not any(photo.owner.nsid == user for photo in visible):
        raise ApiFailureError(2, "Unknown user")
    conditions = _conditions(args, now)
    rows = [photo for photo in visible if all(condition(photo) for condition in conditions)]
    rows += _fuzzed(visible, args, habits.fuzz)
    return _page(_sorted(rows, args), args, habits)


class UploadOrder:
    """Photos by upload time, sorted anew only when they have changed: so a narrow window costs what lies in it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._photos: list[Photo] = []
        self._sorted: list[Photo] = []

    def around(self, photos: list[Photo], args: Arguments) -> list[Photo]:
        """Those of ``photos`` that a search with ``args`` may find, fuzz included, oldest first."""
        with self._lock:
            if photos != self._photos:
                self._photos, self._sorted = photos, sorted(photos, key=_upload_s)
            ordered = self._sorted
        if args.get("user_id"):
            return ordered  # whoever has no photo is unknown
        first, last = args.get("min_upload_date"), args.get("max_upload_date")
        reach_s = FUZZ_REACH.total_seconds()
        start = bisect_left(ordered, parse_time(first).timestamp() - reach_s, key=_upload_s) if first else 0
        end = bisect_right(ordered, parse_time(last).timestamp() + reach_s, key=_upload_s) if last else len(ordered)
        return ordered[start:end]


def _upload_s(photo: Photo) -> float:
    return photo.uploaded_at.timestamp()


def user_photos(photos: Iterable[Photo], args: Arguments, now: datetime) -> Page:
    """One page of an owner's photos; no limit of 4,000 rows, but pages past 10,000 repeat. Raises code 2."""
    user = args.get("user_id")
    rows = [p for p in photos if p.owner.nsid == user and p.is_listed and p.uploaded_at <= now]
    if not rows:
        raise ApiFailureError(2, "Unknown user")
    number, per_page = _page_number(args), _per_page(args)
    served = min(number, 10_000)
    rows = _sorted(rows, {})
    return Page(number, per_page, len(rows), rows[(served - 1) * per_page : served * per_page])


def _conditions(args: Arguments, now: datetime) -> list[Condition]:
    """One claim per argument, the cheap ones first."""
    conditions = [build(args[name], args) for name, build in _ARGUMENTS.items() if args.get(name)]
    if any(args.get(name) for name in GEO_ARGUMENTS):
        conditions.append(lambda photo: photo.location is not None or args.get("has_geo") == "0")
        if not any(args.get(name) for name in LIMITING_ARGUMENTS):
            conditions.append(lambda photo: photo.uploaded_at >= now - timedelta(hours=12))
    return conditions


def parse_time(text: str) -> datetime:
    """A unix time or ``YYYY-MM-DD[ HH:MM:SS]`` in UTC. Raises ApiFailureError 18 on anything else."""
    try:
        if text.lstrip("-").isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise ApiFailureError(18, "Illogical arguments") from None


def shown_taken_at(photo: Photo) -> datetime:
    """When it was taken; the site shows the upload where that is unknown."""
    return photo.taken_at or photo.uploaded_at


def _min_upload(text: str, args: Arguments) -> Condition:
    moment = parse_time(text)
    return lambda photo: photo.uploaded_at >= moment


def _max_upload(text: str, args: Arguments) -> Condition:
    moment = parse_time(text)
    return lambda photo: photo.uploaded_at <= moment


def _min_taken(text: str, args: Arguments) -> Condition:
    moment = parse_time(text)
    return lambda photo: shown_taken_at(photo) >= moment


def _max_taken(text: str, args: Arguments) -> Condition:
    moment = parse_time(text)
    return lambda photo: shown_taken_at(photo) <= moment


def _license(text: str, args: Arguments) -> Condition:
    """Any of the ids; those that are no number are ignored."""
    ids = {int(part) for part in text.split(",") if part.strip().isdigit()}
    return lambda photo: not ids or photo.licence in ids


def _media(text: str, args: Arguments) -> Condition:
    return lambda photo: text == "all" or photo.media == text.removesuffix("s")


def _content_types(text: str, args: Arguments) -> Condition:
    """Everything here is a photo, which is content type 0."""
    return lambda photo: "0" in text.split(",")


def _bbox(text: str, args: Arguments) -> Condition:
    """min_longitude,min_latitude,max_longitude,max_latitude in degrees."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise ApiFailureError(18, "Illogical arguments") from None
    return lambda photo: (
        photo.location is not None and south <= photo.location[0] <= north and west <= photo.location[1] <= east
    )


def _near(text: str, args: Arguments) -> Condition:
    """Within ``radius`` km (5 unless given, at most 32) of lat, lon."""
    try:
        latitude, longitude = float(text), float(args.get("lon") or 0)
        radius_km = min(float(args.get("radius") or 5), 32)
    except ValueError:
        raise ApiFailureError(18, "Illogical arguments") from None
    return lambda photo: photo.location is not None and _distance_km(photo.location, (latitude, longitude)) <= radius_km


def _distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Along the great circle, of two (latitude, longitude) in degrees."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    cosine = math.sin(lat_a) * math.sin(lat_b) + math.cos(lat_a) * math.cos(lat_b) * math.cos(lon_a - lon_b)
    return EARTH_RADIUS_KM * math.acos(min(max(cosine, -1.0), 1.0))


def _has_geo(text: str, args: Arguments) -> Condition:
    return lambda photo: (photo.location is not None) == (text != "0")


def _user(text: str, args: Arguments) -> Condition:
    return lambda photo: photo.owner.nsid == text


def _tags(text: str, args: Arguments) -> Condition:
    """Any of the tags (all of them with tag_mode=all), and none of those with a minus."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wanted = {normal_tag(part) for part in parts if not part.startswith("-")}
    unwanted = {normal_tag(part) for part in parts if part.startswith("-")}
    needs_all = args.get("tag_mode") == "all"
    if needs_all and len(wanted) > MAX_ALL_TAGS:
        raise ApiFailureError(1, "Too many tags in ALL query")

    def has_tags(photo: Photo) -> bool:
        tags = set(photo.tags)
        found = wanted <= tags if needs_all else not wanted or bool(wanted & tags)
        return found and not (unwanted & tags)

    return has_tags


def _text(text: str, args: Arguments) -> Condition:
    """Every word and every "quoted phrase" in title, description or tags, and none of those with a minus."""
    wanted, unwanted = _terms(text)

    def has_words(photo: Photo) -> bool:
        words = _words(photo.title, photo.description, photo.tags)
        return all(term in words for term in wanted) and not any(term in words for term in unwanted)

    return has_words


_ARGUMENTS: dict[str, Callable[[str, Arguments], Condition]] = {
    "min_upload_date": _min_upload,
    "max_upload_date": _max_upload,
    "min_taken_date": _min_taken,
    "max_taken_date": _max_taken,
    "license": _license,
    "media": _media,
    "content_types": _content_types,
    "user_id": _user,
    "bbox": _bbox,
    "lat": _near,
    "has_geo": _has_geo,
    "tags": _tags,
    "text": _text,
}


def _spaced(text: str) -> str:
    """`` word word word ``: a word or phrase is found with a space on both sides."""
    return f" {' '.join(WORD.findall(text.casefold()))} "


@lru_cache(maxsize=1 << 16)
def _words(title: str, description: str, tags: tuple[str, ...]) -> str:
    """All words of a photo; the separator keeps phrases from running over the edge of a field."""
    return "|".join(_spaced(part) for part in (title, description, *tags))


def _terms(text: str) -> tuple[list[str], list[str]]:
    """Wanted and unwanted words and phrases."""
    found = re.findall(r'(?<!\S)(-?)(?:"([^"]+)"|(\S+))', text)
    terms = [(minus, _spaced(phrase or word)) for minus, phrase, word in found]
    return [t for minus, t in terms if not minus and t.strip()], [t for minus, t in terms if minus and t.strip()]


def _fuzzed(visible: list[Photo], args: Arguments, share: float) -> list[Photo]:
    """Rows of the hours around a window narrower than 5 minutes, though nobody asked for them."""
    if not (share and args.get("min_upload_date") and args.get("max_upload_date")):
        return []
    start, end = parse_time(args["min_upload_date"]), parse_time(args["max_upload_date"])
    if not timedelta(0) <= end - start < FUZZ_WINDOW:
        return []
    dates = ("min_upload_date", "max_upload_date")
    others = _conditions({k: v for k, v in args.items() if k not in dates}, end)
    return [
        photo
        for photo in visible
        if start - FUZZ_REACH <= photo.uploaded_at <= end + FUZZ_REACH
        and not start <= photo.uploaded_at <= end
        and chance("fuzz", photo.id, start) < share
        and all(condition(photo) for condition in others)
    ]


def chance(*identity: object) -> float:
    """A number in [0, 1) that follows from ``identity``."""
    return zlib.crc32("/".join(map(str, identity)).encode()) / 2**32


def _sorted(rows: list[Photo], args: Arguments) -> list[Photo]:
    """Rows in the asked order, ties by id; newest upload first unless asked otherwise."""
    order, _, direction = args.get("sort", "").rpartition("-")
    if args.get("sort") == "relevance":
        wanted, _ = _terms(args.get("text", ""))
        return sorted(rows, key=lambda p: (sum(t in _spaced(p.title) for t in wanted), p.views, p.id), reverse=True)
    keys: dict[str, Callable[[Photo], tuple[datetime | int, str]]] = {
        "date-posted": lambda photo: (photo.uploaded_at, photo.id),
        "date-taken": lambda photo: (shown_taken_at(photo), photo.id),
        "interestingness": lambda photo: (photo.views, photo.id),
    }
    return sorted(rows, key=keys.get(order, keys["date-posted"]), reverse=direction != "asc")


def _page_number(args: Arguments) -> int:
    """1 unless given; 0, negative and unreadable numbers are 1."""
    text = args.get("page", "1")
    return max(int(text), 1) if text.isdigit() else 1


def _per_page(args: Arguments) -> int:
    """100 unless given, at most 500, at most 250 for a question about places."""
    text = args.get("per_page", "")
    most = MAX_PER_PAGE_GEO if any(args.get(name) for name in GEO_ARGUMENTS) else MAX_PER_PAGE
    return min(max(int(text), 1), most) if text.isdigit() and int(text) else 100


def _page(rows: list[Photo], args: Arguments, habits: SearchHabits) -> Page:
    """The asked page; past row 4,000 the last one that ends before it, or code 20."""
    number, per_page = _page_number(args), _per_page(args)
    if habits.offset_mode == "error" and (number - 1) * per_page >= MAX_ROWS:
        raise ApiFailureError(20, "Excessive photo offset in search")
    served = min(number, MAX_ROWS // per_page)
    total = len(rows)
    if habits.has_drift:
        total = round(total * (1 + 0.04 * (chance("drift", number, total) - 0.5)))
    return Page(number, per_page, total, rows[(served - 1) * per_page : served * per_page])
