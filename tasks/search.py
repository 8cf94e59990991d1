"""Ask a site for photos: one task run per window of a query; what it found and how it was asked go to the ledger."""

from prefect import task

from storage import manifest, removals
from storage.layout import layout
from storage.records import ManifestRef, Record
from storage.settings import settings
from tasks import caching, sources
from tasks.credentials import with_keys
from tasks.sources.base import Query, Window


class SearchOutcome(Record):
    """Manifests "listings" (the photos found) and "windows" (how they were asked for); windows to ask instead."""

    listings: ManifestRef
    windows: ManifestRef
    parts: tuple[Window, ...] = ()


@task(**caching.stage("search"))
def search(
    source: str, query: Query, window: Window | None = None, is_settled: bool = False, known: ManifestRef | None = None
) -> SearchOutcome:
    """Every photo that ``query`` finds in ``window`` at ``source``, once; None: whenever it was uploaded.

    ``is_settled``: asked after the window had closed. What was found before that is no answer to what is asked now.
    ``known``: manifest "known", for sites whose walk may end among photos that it names. Of photos that were removed
    nothing is kept, though the site may list them still.
    """
    met = frozenset(manifest.read(layout(), known)["photo_id"].to_pylist()) if known else frozenset[str]()
    found = sources.named(source).search(query, window, met, with_keys(settings()))
    blocked = removals.blocked(layout())
    listings = [
        row for row in found.listings if not blocked.is_blocked(row["source"], row["photo_id"], row.get("owner_id"))
    ]
    return SearchOutcome(
        listings=manifest.write_rows(layout(), "listings", listings),
        windows=manifest.write_rows(layout(), "windows", found.windows),
        parts=tuple(found.parts),
    )
