"""What the sources have in common whose photos lie here, or in a list that lies here: asking them costs nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from storage.settings import Settings
from tasks.sources.base import Forecast, Found, Query, Rendition, Seen, Sighting, Window, WindowRow
from tasks.sources.imports import answers
from tasks.sources.imports.files import size_bytes


class Importing:
    """The half of a Source that does not depend on what is imported."""

    stops_at_known: bool = False

    def check(self, settings: Settings) -> None:
        """Nothing: whether there is something to import, the query says."""

    def due(self, query: Query, asked: Sequence[WindowRow], now: datetime) -> list[Window | None]:
        """All of it, each time."""
        return [None]

    def again(self, query: Query, seen: Sequence[Sighting], now: datetime, calls: int) -> tuple[list[Window], int]:
        """Nothing: each search sees all photos."""
        return [], 0

    def search(self, query: Query, window: Window | None, known: frozenset[str], settings: Settings) -> Found:
        """Every photo that ``query`` names."""
        raise NotImplementedError

    def forecast(self, query: Query, window: Window | None, settings: Settings) -> Forecast:
        """The photos that are named, and their bytes as far as files and sizes in pixels tell."""
        photos = self.search(query, window, frozenset(), settings).listings
        return Forecast(photos=len(photos), windows=1, calls=0, bytes=sum(size_bytes(photo) for photo in photos))

    def renew(self, photo_id: str, settings: Settings) -> list[Rendition]:
        """None: what was imported says all that is known."""
        return []

    def inspect(self, photo_id: str, settings: Settings) -> Seen:
        """Unknown: a file that is gone, or a URL that leads nowhere, is not taken down by whoever made the photo."""
        return Seen("unknown", "an import says nothing of a photo's fate")


def found(listings: list[dict[str, Any]], source: str, query: Query, asked_at: datetime, total: int) -> Found:
    """``listings``, out of ``total`` photos, with what every row has; the query's label stands above a photo's own."""
    fixed = {"source": source, "query_id": query.query_id, "observed_at": asked_at, "size_label": "original"}
    own = {"label": query.label} if query.label else {}
    for row in listings:
        row |= fixed | own
        row.setdefault("licence", "unstated")
        row["listed_etag"] = answers.listed_state(row.get("image_url") or "")
    window = {
        "source": source, "query_id": query.query_id, "asked_at": asked_at,
        "state": "listed" if len(listings) == total else "sampled", "total": total, "unique": len(listings), "lost": 0,
        "pages": 1, "calls": 0,
    }  # fmt: skip
    return Found(listings, [window])
