"""Fetch photos: the largest rendition that is there, checked to the last pixel, kept under the digest of its bytes.

Whatever goes wrong with a photo is its ``download_reason``, with the day of the next try. Each photo that is done with
stands in the dataset's journal at once, so that a killed batch keeps what it had and a batch that is tried again asks
for the rest only.
"""

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from prefect import task
from prefect.context import TaskRunContext

from storage import blobs, journal, manifest, partial, removals
from storage.journal import Journal, Row
from storage.layout import Layout, layout
from storage.records import ManifestRef
from storage.removals import Blocked
from storage.settings import Settings, settings
from tasks import caching, sources, stopping
from tasks.addresses import without_query
from tasks.credentials import with_keys
from tasks.errors import (
    CredentialsRejected,
    DarkroomError,
    Interrupted,
    PermanentSourceError,
    SourceUnavailable,
    TransientError,
)
from tasks.pictures import imaging
from tasks.sources.base import Ask, Rendition, Seen
from tasks.verdicts import Answer, opted_out

log = logging.getLogger(__name__)

THREADS = 8  # of one batch; four batches run at once
BROKEN_BYTES = frozenset({"empty", "html", "truncated", "corrupt", "not_an_image"})
TRANSIENT = frozenset({"rate_limited", "unavailable"})
NOT_DOWNLOADABLE = "not_downloadable"
NOT_THERE = frozenset({"gone", "denied", "no_image_url", NOT_DOWNLOADABLE})
OWNERS_WORD = frozenset({"removed", "opted_out", NOT_DOWNLOADABLE})
LOOK_AGAIN = timedelta(days=30)
PHOTOS_TO_BLAME_HOST = 8  # fewer that fail may each have a reason of their own, and must not end the run
BLAMED_SHARE = 16  # nor must fewer than one in so many of a large batch make it be tried again
FREE_BYTES = 2_000_000_000  # that are left to everybody else on the disk

_PLACEHOLDER = "photo_unavailable"  # in the name of the picture that Flickr once redirected to


@dataclass(frozen=True)
class Fetched:
    """One answer of an image host: the picture, or the reason why it is none."""

    answer: Answer
    reason: str | None
    format: str | None = None


@dataclass(frozen=True)
class Site:
    """What fetching needs of a source: how to ask, and where a photo is to be had if its addresses have expired."""

    ask: Ask
    renew: Callable[[str], list[Rendition]] = lambda photo_id: []
    inspect: Callable[[str], Seen] = lambda photo_id: Seen("unknown", "")
    blocked: Blocked = Blocked([])  # noqa: RUF009  it is never changed


def next_try_at(reason: str | None, attempt: int, fetched_at: datetime) -> datetime | None:
    """When to ask for a photo again after ``attempt`` earlier tries; None: never, it is here or will not come."""
    if reason in TRANSIENT:
        return fetched_at
    if reason in BROKEN_BYTES:
        return fetched_at + min(LOOK_AGAIN, timedelta(days=2 ** min(attempt, 5)))
    return fetched_at + LOOK_AGAIN if reason in NOT_THERE else None


def judge(answer: Answer, etag: str | None = None) -> Fetched:
    """What ``answer`` holds. The bytes decide; the name and the declared type may lie.

    ``etag``: of the file that was asked about. Who sends "not modified" to somebody who has none sends no picture.
    """
    if _PLACEHOLDER in answer.url:
        return Fetched(answer, "gone")
    if answer.outcome == "not_modified" and opted_out(answer.headers):
        return Fetched(answer, "opted_out")
    if answer.outcome == "not_modified" and not etag:
        return Fetched(answer, "unavailable")
    if answer.outcome != "ok":
        return Fetched(answer, answer.outcome)
    if answer.body and answer.headers.get("Content-Type", "").startswith("text/html"):
        return Fetched(answer, "html")
    try:
        return Fetched(answer, None, imaging.verify(answer.body).format)
    except imaging.BadImage as error:
        return Fetched(answer, error.reason)


def climb(renditions: list[Rendition], ask: Ask, etag: str | None = None) -> tuple[Rendition, Fetched]:
    """The largest rendition that is not gone, and what came of it. Bytes that came whole, but broken, are asked for
    once more. ``etag``: of the file that is held of the first.
    """
    for rendition in renditions:
        fetched = judge(ask(rendition["url"], etag), etag) if etag else judge(ask(rendition["url"]))
        if fetched.reason in BROKEN_BYTES and fetched.answer.outcome == "ok":
            fetched = judge(ask(rendition["url"]))
        if fetched.reason != "gone":
            break
        etag = None
    return rendition, fetched


def climb_renewed(wanted: Row, site: Site, etag: str | None) -> tuple[Rendition, Fetched]:
    """As ``climb``; addresses that are denied may have expired, and are asked of the site anew, once."""
    rendition, fetched = climb(wanted["renditions"], site.ask, etag)
    if fetched.reason != "denied":
        return rendition, fetched
    try:
        fresh = site.renew(wanted["photo_id"])
    except Interrupted:
        raise
    except DarkroomError as error:
        log.info("photo %s: no fresh address of it (%s)", wanted["photo_id"], error)
        return rendition, fetched
    sizes = {rung["label"] for rung in wanted["renditions"]}  # no larger than was asked for
    fresh = [rung for rung in fresh if rung["label"] in sizes]
    return climb(fresh, site.ask, etag) if fresh else (rendition, fetched)


def fetch(wanted: Row, site: Site, where: Layout) -> Row:
    """The ``attempts`` row of one photo; its bytes are kept if they are a picture. Raises DiskFull."""
    row = {name: wanted[name] for name in journal.IDENTITY}
    if site.blocked.is_blocked(wanted["source"], wanted["photo_id"], wanted.get("owner_id"), wanted.get("sha256")):
        row |= {"download_reason": "removed"}
    elif not wanted["renditions"]:
        row |= {"download_reason": "no_image_url"}
    elif wanted.get("is_open") is False and (refusal := withheld(site, wanted["photo_id"])):
        row |= {"download_reason": refusal}
    else:
        rendition, fetched = climb_renewed(wanted, site, etag_held(wanted, where))
        row |= {
            "download_reason": fetched.reason, "fetched_url": without_query(rendition["url"]),
            "fetched_label": rendition["label"], "http_status": fetched.answer.status or None,
            "etag": fetched.answer.headers.get("ETag"), **kept(wanted, fetched, site.blocked, where),
        }  # fmt: skip
    fetched_at, reason = datetime.now(UTC), row["download_reason"]
    due_at = next_try_at(reason, row["attempt"], fetched_at)
    if reason not in OWNERS_WORD and is_held(wanted, where):  # what could not be had leaves what is here as it was
        row |= {name: row.get(name) or wanted[name] for name in ("sha256", "bytes", "format")}
        row["download_reason"] = None
    return row | {"fetched_at": fetched_at, "next_try_at": due_at}


def withheld(site: Site, photo_id: str) -> str | None:
    """Why a photo whose original is not shown may not be taken, in whatever size; asks the site. None: it may.

    Raises CredentialsRejected.
    """
    try:
        seen = site.inspect(photo_id)
    except TransientError:
        return "unavailable"
    except CredentialsRejected:
        raise
    except PermanentSourceError as error:
        log.info("photo %s: not known whether it may be downloaded (%s)", photo_id, error)
        return "denied"
    if seen.state == "gone":
        return "gone"
    return None if seen.is_download_allowed else NOT_DOWNLOADABLE


def is_held(wanted: Row, where: Layout) -> bool:
    """Whether a file of the photo is here already."""
    return bool(wanted.get("sha256")) and where.blob(wanted["sha256"], wanted["format"]).is_file()


def etag_held(wanted: Row, where: Layout) -> str | None:
    """The ETag of a photo that is held and only to be looked at again."""
    return str(wanted["etag"]) if wanted.get("etag") and is_held(wanted, where) else None


def kept(wanted: Row, fetched: Fetched, blocked: Blocked, where: Layout) -> Row:
    """Keep the bytes of ``fetched``, and say what they are; those of a file that is the same still are as before."""
    if fetched.reason == "not_modified":
        same = {name: wanted[name] for name in ("sha256", "bytes", "format")}
        return same | {"download_reason": None, "etag": fetched.answer.headers.get("ETag") or wanted["etag"]}
    if fetched.format is None:
        return {}
    body, who = fetched.answer.body, (wanted["source"], wanted["photo_id"], wanted.get("owner_id"))
    if blocked and blocked.is_blocked(*who, hashlib.sha256(body).hexdigest()):
        return {"download_reason": "removed"}
    return {"sha256": blobs.put(where, body, fetched.format), "bytes": len(body), "format": fetched.format}


def check_reached(rows: Iterable[Row], is_last_try: bool = True, has_many_hosts: bool = False) -> None:
    """Raises SourceUnavailable if a host is gone, so that the batch is tried again.

    At the last try what was fetched counts: the others are rows that are due at once. Then it is raised only if not one
    of so many photos was to be had that it must be the host's fault; never ``has_many_hosts``: each has its own, and
    those that are gone for good would keep the others' photos from being published for ever.
    """
    if is_last_try and has_many_hosts:
        return
    asked = [row for row in rows if row.get("fetched_url")]
    failed = [urlsplit(row["fetched_url"]).netloc for row in asked if row["download_reason"] == "unavailable"]
    host, photos = max(Counter(failed).items(), key=lambda item: item[1], default=("", 0))
    is_all = len(failed) == len(asked) >= PHOTOS_TO_BLAME_HOST
    if is_all or (photos >= max(PHOTOS_TO_BLAME_HOST, len(asked) // BLAMED_SHARE) and not is_last_try):
        hosts = ", ".join(sorted(set(failed))) if is_all else host
        how_many = f"none of {len(asked)}" if is_all else f"{photos} of {len(asked)}"
        verb = "could be" if is_all else "could not be"
        raise SourceUnavailable(
            f"{how_many} photos {verb} fetched from {hosts}: see that it can be reached, or try again later"
        )


def room_left(where: Layout, settings: Settings) -> int:
    """Bytes that photos may still take: of the disk, less what others need, and of ``disk_gb`` where that is set."""
    where.root.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(where.root).free - FREE_BYTES
    if settings.disk_gb is not None:
        room = min(room, round(settings.disk_gb * 1e9) - folder_bytes(where.root / "blobs"))
    return max(0, room)


def folder_bytes(folder: Path) -> int:
    """What the files below ``folder`` take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fetch_all(photos: list[Row], site: Site, where: Layout, book: Journal) -> list[Row]:
    """``attempts`` rows of ``photos``; each is in the journal once it is final. Raises DiskFull with that intact, and
    Interrupted as soon as somebody gives up waiting."""

    def one(photo: Row) -> Row:
        stopping.check()
        row = fetch(photo, site, where)
        if row["download_reason"] not in TRANSIENT:
            book.note(row)
        return row

    known = {(row["source"], row["photo_id"]) for row in book.rows}
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="download")
    try:  # each in a copy of the context, where Prefect's settings and its run are
        futures = [
            threads.submit(copy_context().run, one, photo)
            for photo in photos
            if (photo["source"], photo["photo_id"]) not in known
        ]
        return book.rows + [future.result() for future in futures]
    finally:
        threads.shutdown(cancel_futures=True)


def is_last_try() -> bool:
    """Whether Prefect will not try this task again if it fails."""
    run = TaskRunContext.get()
    return run is None or run.task_run.run_count > run.task.retries


@task(**caching.stage("download"))
def download(source: str, dataset: str, wanted: ManifestRef) -> ManifestRef:
    """One ``attempts`` row for each ``wanted`` photo, in the ledger of ``dataset`` already.

    Raises SourceUnavailable if the site cannot be reached, and DiskFull; what was fetched is in the journal then.
    """
    where, keys, site = layout(), with_keys(settings()), sources.named(source)
    at = Site(
        site.ask(keys), lambda photo_id: site.renew(photo_id, keys), lambda photo_id: site.inspect(photo_id, keys),
        removals.blocked(where),
    )  # fmt: skip
    with journal.keeping(where, dataset, wanted.sha256) as book:
        rows = fetch_all(manifest.read(where, wanted).to_pylist(), at, where, book)
    check_reached(rows, is_last_try(), has_many_hosts="hosts" in site.takes)
    counts = Counter(row["download_reason"] or "fetched" for row in rows)
    log.info("download %s: %s", wanted.sha256[:12], " ".join(f"{name}={count}" for name, count in counts.most_common()))
    partial.sweep(where.partial)
    return journal.adopt(where, dataset, wanted.sha256, rows)
