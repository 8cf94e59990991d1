"""What a search is, and what a site must offer to be one of the SOURCES."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from storage.settings import Settings

Size = Literal[
    "original", "X-Large 6K", "X-Large 5K", "X-Large 4K", "X-Large 3K", "Large 2048", "Large 1600", "Large",
    "Medium 800", "Medium 640",
]  # fmt: skip
LONG_EDGE_PX: dict[str, int] = {
    "X-Large 6K": 6144, "X-Large 5K": 5120, "X-Large 4K": 4096, "X-Large 3K": 3072, "Large 2048": 2048,
    "Large 1600": 1600, "Large": 1024, "Medium 800": 800, "Medium 640": 640,
}  # fmt: skip
SEARCH_ARGUMENTS = ("text", "tags", "bbox", "uploaded_after", "uploaded_before")


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
        return self.text or ", ".join(self.tags) or self.label or "everything"

    @property
    def query_id(self) -> str:
        """A short name for what is asked: the same for the same query, always."""
        asked = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Found:
    """What a search brought: rows of ``records.SCHEMAS`` for the listings and for the windows that were asked."""

    listings: list[dict[str, Any]]
    windows: list[dict[str, Any]]


class Source(Protocol):
    """A site that photos come from."""

    @property
    def name(self) -> str:
        """What it is called in SOURCES, in rows and in a dataset's configuration."""

    def check(self, settings: Settings) -> None:
        """Raises CredentialsRejected or ConfigError, in one sentence, if the site cannot be asked as things are set."""

    def search(self, query: Query, settings: Settings) -> Found:
        """Every photo that ``query`` finds, once. Raises TransientError, PermanentSourceError or ConfigError."""
