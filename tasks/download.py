"""Fetch photos: the largest rendition that is there, checked to the last pixel, kept under the digest of its bytes.

Whatever goes wrong with a photo is its ``download_reason``, with the day of the next try. Only a site that cannot be
reached at all is an exception, so that nothing half-done is kept.

Source: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag (X-Robots-Tag; noai and noimageai
are the opt-outs of photo sites).
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from prefect import task

from storage import blobs, manifest
from storage.layout import Layout, layout
from storage.records import ManifestRef
from storage.settings import settings
from tasks import caching, imaging, web
from tasks.errors import SourceUnavailable

log = logging.getLogger(__name__)

THREADS = 8
BROKEN_BYTES = frozenset({"empty", "html", "truncated", "corrupt", "not_an_image"})
TRANSIENT = frozenset({"rate_limited", "unavailable"})
NOT_THERE = frozenset({"gone", "denied", "no_image_url"})
LOOK_AGAIN = timedelta(days=30)

_OPT_OUT = re.compile(r"(?i)\b(noai|noimageai)\b")
_PLACEHOLDER = "photo_unavailable"  # in the name of the picture that Flickr once redirected to


@dataclass(frozen=True)
class Fetched:
    """One answer of an image host: the picture, or the reason why it is none."""

    answer: web.Answer
    reason: str | None
    format: str | None = None


Ask = Callable[[str], web.Answer]
PHOTOS_TO_BLAME_HOST = 8  # fewer that fail may each have a reason of their own, and must not end the run


def next_try_at(reason: str | None, attempt: int, fetched_at: datetime) -> datetime | None:
    """When to ask for a photo again after ``attempt`` earlier tries; None: never, it is here or will not come."""
    if reason in TRANSIENT:
        return fetched_at
    if reason in BROKEN_BYTES:
        return fetched_at + min(LOOK_AGAIN, timedelta(days=2 ** min(attempt, 5)))
    return fetched_at + LOOK_AGAIN if reason in NOT_THERE else None


def opted_out(headers: Mapping[str, str]) -> web.Outcome | None:
    """``opted_out`` if the owner asks that no machine learn from the picture, whichever robot is addressed."""
    return "opted_out" if _OPT_OUT.search(headers.get("X-Robots-Tag", "")) else None


def judge(answer: web.Answer) -> Fetched:
    """What ``answer`` holds. The bytes decide; the name and the declared type may lie."""
    if _PLACEHOLDER in answer.url:
        return Fetched(answer, "gone")
    if answer.outcome != "ok":
        return Fetched(answer, answer.outcome)
    if answer.body and answer.headers.get("Content-Type", "").startswith("text/html"):
        return Fetched(answer, "html")
    try:
        return Fetched(answer, None, imaging.verify(answer.body).format)
    except imaging.BadImage as error:
        return Fetched(answer, error.reason)


def climb(renditions: list[dict[str, str]], ask: Ask) -> tuple[dict[str, str], Fetched]:
    """The largest rendition that is not gone, and what came of it. Bytes that came broken are asked for once more."""
    for rendition in renditions:
        fetched = judge(ask(rendition["url"]))
        if fetched.reason in BROKEN_BYTES:
            fetched = judge(ask(rendition["url"]))
        if fetched.reason != "gone":
            break
    return rendition, fetched


def fetch(wanted: dict[str, Any], ask: Ask, where: Layout) -> dict[str, Any]:
    """The ``attempts`` row of one photo; its bytes are kept if they are a picture."""
    row = {name: wanted[name] for name in ("source", "photo_id", "attempt")}
    if not wanted["renditions"]:
        row |= {"download_reason": "no_image_url"}
    else:
        rendition, fetched = climb(wanted["renditions"], ask)
        row |= {
            "download_reason": fetched.reason, "fetched_url": fetched.answer.url, "fetched_label": rendition["label"],
            "http_status": fetched.answer.status or None,
        }  # fmt: skip
        if fetched.format is not None:
            body = fetched.answer.body
            row |= {"sha256": blobs.put(where, body, fetched.format), "bytes": len(body), "format": fetched.format}
    fetched_at = datetime.now(UTC)
    return row | {
        "fetched_at": fetched_at,
        "next_try_at": next_try_at(row["download_reason"], row["attempt"], fetched_at),
    }


def check_reached(rows: list[dict[str, Any]]) -> None:
    """Raises SourceUnavailable if not one of so many photos was to be had that it must be the host's fault."""
    asked = [row for row in rows if row["download_reason"] != "no_image_url"]
    if len(asked) >= PHOTOS_TO_BLAME_HOST and all(row["download_reason"] == "unavailable" for row in asked):
        hosts = ", ".join(sorted({urlsplit(row["fetched_url"]).netloc for row in asked}))
        raise SourceUnavailable(
            f"none of {len(asked)} photos could be fetched from {hosts}: see that it can be reached, or try again later"
        )


@task(**caching.stage("download"))
def download(source: str, wanted: ManifestRef) -> ManifestRef:
    """One ``attempts`` row for each ``wanted`` photo. Raises SourceUnavailable if the site cannot be reached."""
    where, client, hosts = layout(), web.client(), settings().allowed_image_hosts

    def ask(url: str) -> web.Answer:
        return client.get(url, kind="image", hosts=hosts, veto=opted_out)

    photos = manifest.read(where, wanted).to_pylist()
    with ThreadPoolExecutor(THREADS, thread_name_prefix=f"download-{source}") as threads:
        rows = list(threads.map(lambda photo: fetch(photo, ask, where), photos))
    check_reached(rows)
    counts = Counter(row["download_reason"] or "fetched" for row in rows)
    log.info("download %s: %s", wanted.sha256[:12], " ".join(f"{name}={count}" for name, count in counts.most_common()))
    return manifest.write_rows(where, "attempts", rows)
