"""What a search is, and what a site must offer to be one of the SOURCES."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from storage.settings import Settings
from tasks import web

Size = Literal[
    "original", "X-Large 6K", "X-Large 5K", "X-Large 4K", "X-Large 3K", "Large 2048", "Large 1600", "Large",
    "Medium 800", "Medium 640",
]  # fmt: skip
LONG_EDGE_PX: dict[str, int] = {
    "X-Large 6K": 6144, "X-Large 5K": 5120, "X-Large 4K": 4096, "X-Large 3K": 3072, "Large 2048": 2048,
    "Large 1600": 1600, "Large": 1024, "Medium 800": 800, "Medium 640": 640,
}  # fmt: skip
SECOND = timedelta(seconds=1)
SETTLES_IN = timedelta(days=14)  # photos appear in a search some time after they were uploaded
EXTENT = {"uploaded_after", "uploaded_before", "limit", "start_page", "max_pages"}  # how much, not what
SEARCH_ARGUMENTS = ("text", "tags", "bbox", "category", "path", "uploaded_after", "uploaded_before")


def _first_page(page: int) -> int:
    """Page 0 is page 1: the first page is called both."""
    return max(1, page)


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Query(BaseModel):
    """One search: what to look for, where, when, and how much of it to take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[str | None, Field(min_length=1, description="Words in title, description or tags.")] = None
    tags: Annotated[tuple[str, ...], Field(max_length=20, description="Tags, all of which a photo has.")] = ()
    bbox: Annotated[
        tuple[float, float, float, float] | None,
        Field(description="Where: min_lon, min_lat, max_lon, max_lat in degrees."),
    ] = None
    category: Annotated[str | None, Field(min_length=1, description="A category, as the site calls it.")] = None
    path: Annotated[str | None, Field(min_length=1, description="A folder or a file, for folder and table.")] = None
    columns: Annotated[dict[str, str], Field(description="Of a table: which of its columns is our photo_id, ...")] = {}
    hosts: Annotated[tuple[str, ...], Field(description="Of a table: further hosts that its URLs may lead to.")] = ()
    label: Annotated[str | None, Field(description="What the photos found are called when training.")] = None
    licences: Annotated[tuple[str, ...], Field(description="Ids of licences as the site numbers them; none: any.")] = ()
    uploaded_after: Annotated[Moment | None, Field(description="Uploaded at or after (with a time zone).")] = None
    uploaded_before: Annotated[Moment | None, Field(description="Uploaded at or before (with a time zone).")] = None
    limit: Annotated[int | None, Field(ge=1, description="Photos to take at most.")] = None
    start_page: Annotated[int, Field(ge=0, description="First page to read."), AfterValidator(_first_page)] = 1
    max_pages: Annotated[int | None, Field(ge=1, description="Pages of results to read at most.")] = None
    size: Annotated[Size, Field(description="Largest size to download; smaller ones stand in for it.")] = "original"

    @model_validator(mode="after")
    def _searches_for_something(self) -> Self:
        if not any(getattr(self, name) for name in SEARCH_ARGUMENTS):
            raise ValueError(f"a query needs at least one of {', '.join(SEARCH_ARGUMENTS)} to search for")
        return self

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ValueError(
                    f"bbox must be min_lon, min_lat, max_lon, max_lat in degrees, each minimum below its maximum, "
                    f"not {self.bbox!r}; an area across the date line takes two queries"
                )
        if self.uploaded_after and self.uploaded_before and self.uploaded_after > self.uploaded_before:
            raise ValueError(f"uploaded_after {self.uploaded_after} lies behind uploaded_before {self.uploaded_before}")
        return self

    @property
    def name(self) -> str:
        """What it looks for, as people see it in a list of task runs."""
        return self.text or ", ".join(self.tags) or self.category or self.path or self.label or "everything"

    @property
    def query_id(self) -> str:
        """A short name for what is looked for, the same whenever and however much of it is asked for."""
        asked = json.dumps(self.model_dump(mode="json", exclude_defaults=True, exclude=EXTENT), sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:12]


class Window(BaseModel):
    """A slice of upload time in whole seconds, ``after`` included and ``before`` not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: Moment
    before: Moment

    def is_closed(self, now: datetime) -> bool:
        """Whether it ended so long ago that asking again finds nothing new."""
        return self.before <= now - SETTLES_IN


@dataclass(frozen=True)
class Found:
    """What a search brought: rows of ``records.SCHEMAS`` for listings and windows, and what must be asked instead."""

    listings: list[dict[str, Any]]
    windows: list[dict[str, Any]]
    parts: list[Window] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """What a query would cost, as far as one call tells: photos in all, windows, calls to come, bytes of its photos.

    ``spent``: calls that the forecast took.
    """

    photos: int = 0
    windows: int = 0
    calls: int = 0
    bytes: int = 0
    spent: int = 0


@dataclass(frozen=True)
class Seen:
    """What a site says of one photo when asked for it by name.

    state: ``present``; ``gone`` (deleted, or private now); ``unknown``: the site has no such question.
    proof: method, code and message of the answer, without secrets.
    """

    state: Literal["present", "gone", "unknown"]
    proof: str
    licence: str | None = None
    licence_url: str | None = None
    is_download_allowed: bool = True


Ask = web.Ask  # of a URL, and of the ETag of a file that is held already
Rendition = dict[str, str]  # label, url
Sighting = tuple[datetime, datetime]  # when a photo was uploaded, and when a search last showed it
WindowRow = Mapping[str, Any]  # of records.SCHEMAS["windows"]


def degrees(value: Any, bound: int) -> float | None:
    """An angle between -``bound`` and ``bound``, or None."""
    try:
        angle_deg = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return angle_deg if isfinite(angle_deg) and abs(angle_deg) <= bound else None


class Source(Protocol):
    """A site that photos come from."""

    @property
    def name(self) -> str:
        """What it is called in SOURCES, in rows and in a dataset's configuration."""

    @property
    def takes(self) -> frozenset[str]:
        """The fields of a Query that it heeds; a dataset that gives others is refused."""

    @property
    def stops_at_known(self) -> bool:
        """Whether a search goes from new to old and may end among photos that the ledger knows."""

    def check(self, settings: Settings) -> None:
        """Raises CredentialsRejected or ConfigError, in one sentence, if the site cannot be asked as things are set."""

    def due(self, query: Query, asked: Sequence[WindowRow], now: datetime) -> list[Window | None]:
        """What of ``query`` must be asked now, given the window rows of earlier times; None: all of it, as one."""

    def again(self, query: Query, seen: Sequence[Sighting], now: datetime, calls: int) -> tuple[list[Window], int]:
        """Windows to list once more because what is known of their photos is old, and the calls that this takes: at
        most ``calls``. Nothing for sites whose search cannot be asked for a time.
        """

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """Every photo that ``query`` finds in ``window``, once; a window that is too full says into which parts it is
        to be divided. ``known``: photos of the ledger, for sites whose walk may stop at them.

        Raises TransientError, PermanentSourceError or ConfigError.
        """

    def forecast(self, query: Query, window: Window | None, settings: Settings) -> Forecast:
        """What ``search`` would cost, for at most one call."""

    def ask(self, settings: Settings) -> Ask:
        """How the file behind a rendition's URL is fetched. Never raises: an answer says what went wrong."""

    def renew(self, photo_id: str, settings: Settings) -> list[Rendition]:
        """Fresh addresses of a photo, largest first, for sites whose URLs expire; none where they do not."""

    def inspect(self, photo_id: str, settings: Settings) -> Seen:
        """What the site says of one photo now. Raises TransientError, and PermanentSourceError for an odd answer."""
