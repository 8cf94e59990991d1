"""What a refresh gets from a site: which windows it asks, which photos it fetches, and what that would cost."""

import logging
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from prefect.futures import PrefectFuture

from flows import artifacts
from flows.progress import say, stoppable, stream
from storage import catalog, journal, ledger, manifest
from storage.layout import layout, sweep_drafts
from storage.records import ManifestRef, Plan, QueryPlan
from storage.settings import settings
from storage.signatures import unsigned
from tasks import sources
from tasks.credentials import with_keys
from tasks.dataset import Dataset
from tasks.download import download, room_left
from tasks.errors import ConfigError, EmptyResult
from tasks.search import SearchOutcome, search
from tasks.sources.base import Forecast, Query, Window

LOG = logging.getLogger(__name__)
BATCHES = 200  # task runs of one refresh that download, at most
MIN_BATCH_PHOTOS = 128  # a killed batch loses nothing that it had, so few and large ones do no harm
FULL_BATCH_PHOTOS = 512  # if every worker gets one: a task run costs as much CPU as fetching thirty photos
WORKERS = 4  # task runs of one refresh at once
MAX_WINDOWS = 600  # task runs of one refresh that search, at most; the next refresh goes on
FACTS_SHARE = 0.2  # of an hour's calls: spent in one refresh to look again at photos that are known
WALKED = 0.8  # of the photos that a walk is to see: some are listed and may not be taken
Job = tuple[Query, Window | None, bool]  # True: its question was answered before, in part or long ago


def find(dataset: Dataset) -> None:
    """Search, and put what was found into the ledger. Raises EmptyResult if the dataset has no photo at all."""
    now, left = datetime.now(UTC), MAX_WINDOWS
    sweep_drafts(layout())
    ledger.compact(layout(), dataset.name)
    known = catalog.asked(layout(), dataset.name)
    jobs = [*to_look_at_again(dataset, now)][: MAX_WINDOWS // 5] + to_search(dataset, known, now)
    files: dict[str, str] = {}
    while jobs and left:
        asked, jobs = jobs[:left], jobs[left:]
        left -= len(asked)
        jobs = in_turns([jobs, *search_all(dataset, asked, known, files, now)])
    if jobs:
        say(LOG, f"search: {len(jobs):,} windows and their parts are left for the next refresh, after {MAX_WINDOWS:,}")
    if not ledger.files(layout(), dataset.name, "listings"):
        raise EmptyResult(f"no photo was found by the queries of {dataset.name!r}: widen them")


def to_search(dataset: Dataset, known: dict[str, list[dict[str, Any]]], now: datetime) -> list[Job]:
    """What the ledger, whose window rows are ``known``, does not settle: of each query in turn, the newest first."""
    source, jobs = sources.named(dataset.source), list[list[Job]]()
    for query in dataset.queries:
        rows = known.get(query.query_id, [])
        spans = {(row["uploaded_after"], row["uploaded_before"]) for row in rows}
        due = source.due(query, rows, now)
        jobs.append([(query, window, window is not None and (window.after, window.before) in spans) for window in due])
    return in_turns(jobs)


def in_turns(lists: Iterable[list[Job]]) -> list[Job]:
    """The first of each list, then the second of each, and so on: no query waits until another is done."""
    return [job for turn in zip_longest(*lists) for job in turn if job is not None]


def to_look_at_again(dataset: Dataset, now: datetime) -> Iterator[Job]:
    """Windows whose photos were last seen long ago: titles, licences and addresses change, and photos vanish."""
    calls = int(FACTS_SHARE * settings().api_calls_per_hour)
    source, seen = sources.named(dataset.source), catalog.sightings(layout(), dataset.name)
    for query in dataset.queries:
        chosen, spent = source.again(query, seen.get(query.query_id, []), now, calls)
        calls -= spent
        yield from ((query, window, True) for window in chosen)


def search_all(
    dataset: Dataset, jobs: list[Job], known: dict[str, list[dict[str, Any]]], files: dict[str, str], now: datetime
) -> list[list[Job]]:
    """Search for all of ``jobs``, and keep what each found; what must be asked instead of each that was too full."""
    parts: list[list[Job]] = [[] for _ in jobs]
    stops = sources.named(dataset.source).stops_at_known

    def submit(number: int) -> PrefectFuture[SearchOutcome]:
        rows = known.get(jobs[number][0].query_id, [])
        return _submit(dataset, jobs[number], known_to_stop_at(dataset, jobs[number][0], rows) if stops else None, now)

    def keep(number: int, found: SearchOutcome) -> None:
        query, _, again = jobs[number]
        if "path" in sources.named(dataset.source).takes:
            refuse_twins(files, found.listings)
        for ref in (found.listings, found.windows):  # a window counts as listed when its photos are in the ledger
            ledger.adopt(layout(), dataset.name, ref)
        parts[number] = [(query, part, again) for part in found.parts]

    stream("search", len(jobs), submit, keep)
    return parts


def _submit(dataset: Dataset, job: Job, known: ManifestRef | None, now: datetime) -> PrefectFuture[SearchOutcome]:
    """One window's task; asked anew unless it is closed and the ledger has no answer of it."""
    query, window, again = job
    is_settled = window is not None and window.is_closed(now)
    name = f"search {query.name}" + (f" {window.after:%Y-%m-%d}..{window.before:%Y-%m-%d}" if window else "")
    task = search.with_options(refresh_cache=again or not is_settled, task_run_name=name)
    asked = query.model_copy(update={"uploaded_after": None, "uploaded_before": None}) if window else query
    return task.submit(dataset.source, asked, window, is_settled, known)


def known_to_stop_at(dataset: Dataset, query: Query, rows: list[dict[str, Any]]) -> ManifestRef | None:
    """The photos of the ledger, if a walk through ``query`` has once come as far as it was to; else None."""
    enough = WALKED * min([query.limit or math.inf, *(row["total"] for row in rows[-1:])])
    if not rows or max(row["unique"] for row in rows) < enough:
        return None
    return manifest.write(layout(), "known", catalog.known(layout(), dataset.name))


def refuse_twins(files: dict[str, str], listings: ManifestRef) -> None:
    """Raise ConfigError if two folders have a photo of the same relative path: the one would take the other's place.

    ``files``: the file of each photo_id so far; takes in those of ``listings``.
    """
    rows = manifest.read(layout(), listings, ["photo_id", "image_url"])
    for photo_id, url in zip(rows["photo_id"].to_pylist(), rows["image_url"].to_pylist(), strict=True):
        file = unsigned(url or "")
        if files.setdefault(photo_id, file) != file:
            raise ConfigError(
                f"two queries have a photo {photo_id!r}, {files[photo_id]} and {file}: make one query of the folder "
                "that holds both, whose subfolders give the labels, or two datasets"
            )


def fetch(dataset: Dataset) -> None:
    """Download what was found and is not held, in batches; how each attempt ended goes into the ledger.

    Ends early, saying so, when the disk may not take more.
    """
    where = layout()
    journal.recover(where, dataset.name)
    wanted = catalog.wanted(where, dataset.name, datetime.now(UTC), dataset.query_ids)
    if not wanted.num_rows:
        return
    size = batch_photos(wanted.num_rows)
    batches = [manifest.write(where, "wanted", wanted.slice(start, size)) for start in range(0, wanted.num_rows, size)]
    expected = catalog.expected_bytes(where, dataset.name, wanted) / wanted.num_rows
    room = room_left(where, settings())
    announce(dataset, wanted.num_rows, expected, room)

    def submit(number: int) -> PrefectFuture[ManifestRef]:
        task = download.with_options(task_run_name=f"download {number + 1} of {len(batches)}")
        return task.submit(dataset.source, dataset.name, batches[number])

    def keep(number: int, attempts: ManifestRef) -> None:
        nonlocal room
        ledger.adopt(where, dataset.name, attempts)
        room -= sum(filter(None, manifest.read(where, attempts, ["bytes"])["bytes"].to_pylist()))

    def has_room(ahead: int) -> bool:
        return bool(room > expected * size * ahead)

    done = stream("download", len(batches), submit, keep, has_room)
    if done < len(batches):
        left = sum(batch.rows for batch in batches[done:])
        say(
            LOG, f"download: no room for {left:,} more photos: free some disk, or raise DARKROOM_DISK_GB, and run again"
        )


def batch_photos(photos: int) -> int:
    """How many of ``photos`` one task run downloads."""
    shared = min(FULL_BATCH_PHOTOS, math.ceil(photos / WORKERS))
    return max(MIN_BATCH_PHOTOS, shared, math.ceil(photos / BATCHES))


def announce(dataset: Dataset, photos: int, expected: float, room: float) -> None:
    """Say what the download is about to take, of ``photos`` with the ``expected`` bytes each, and the ``room``."""
    sizes = ", ".join(sorted({query.size for query in dataset.queries}))
    say(
        LOG,
        f"download: {photos:,} photos in size {sizes} or the next smaller one, about {photos * expected / 1e9:,.2f} GB;"
        f" there is room for {room / 1e9:,.1f} GB",
    )


@stoppable()
def plan(dataset: Dataset) -> Plan:
    """What a refresh would ask and fetch, for one call a query; nothing is listed, nothing is fetched."""
    now, source, current = datetime.now(UTC), sources.named(dataset.source), with_keys(settings())
    known, rows, spent = catalog.asked(layout(), dataset.name), [], 0
    for query in dataset.queries:
        due = source.due(query, known.get(query.query_id, []), now)
        whole = [window for window in due if window]
        hull = Window(after=min(w.after for w in whole), before=max(w.before for w in whole)) if whole else None
        cost = source.forecast(query, hull, current) if due else Forecast()
        spent += cost.spent
        count, gigabytes = max(cost.windows, len(due)), round(cost.bytes / 1e9, 2)
        rows.append(
            QueryPlan(query=query.name, photos=cost.photos, windows=count, calls=cost.calls, gigabytes=gigabytes)
        )
    photos, calls = sum(row.photos for row in rows), sum(row.calls for row in rows)
    hours = max(calls / current.api_calls_per_hour, photos / current.images_per_s / 3600)
    count = sum(row.windows for row in rows)
    planned = Plan(
        dataset=dataset.name, queries=rows, photos=photos, windows=count, calls=calls, calls_spent=spent,
        refreshes=max(1, math.ceil(count / MAX_WINDOWS)), hours=round(hours, 2),
        gigabytes=round(sum(row.gigabytes for row in rows), 2),
    )  # fmt: skip
    for row in rows:
        LOG.info(
            "plan %s: %d windows, %d calls, %.2f GB for %d photos", row.query, row.windows, row.calls, row.gigabytes,
            row.photos,
        )  # fmt: skip
    artifacts.show_plan(planned)
    return planned
