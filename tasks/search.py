"""Ask a site for photos: one task run per query; what it found and how it was asked go to the ledger."""

from datetime import datetime, timedelta

from prefect import task

from storage import manifest
from storage.layout import layout
from storage.records import ManifestRef, Record
from storage.settings import settings
from tasks import caching, sources
from tasks.credentials import with_keys
from tasks.sources.base import Query

SETTLES_IN = timedelta(days=14)  # photos appear in a search some time after they were uploaded


class SearchOutcome(Record):
    """Manifests "listings" (the photos found) and "windows" (how they were asked for)."""

    listings: ManifestRef
    windows: ManifestRef


def is_closed(query: Query, now: datetime) -> bool:
    """Whether ``query`` looks only at uploads so old that asking again finds nothing new."""
    return query.uploaded_before is not None and query.uploaded_before <= now - SETTLES_IN


@task(**caching.stage("search"))
def search(source: str, query: Query, is_settled: bool = False) -> SearchOutcome:
    """Every photo that ``query`` finds at ``source``, once.

    ``is_settled``: asked after its window had closed. What was found before that is no answer to what is asked now.
    """
    found = sources.named(source).search(query, with_keys(settings()))
    return SearchOutcome(
        listings=manifest.write_rows(layout(), "listings", found.listings),
        windows=manifest.write_rows(layout(), "windows", found.windows),
    )
