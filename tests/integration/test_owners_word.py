"""What an owner says after the download: no downloads any more, or a removal that meets a download that was killed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import flows.acquire
import tasks.download
from flows.audit import audit_dataset
from storage import catalog, journal, ledger, manifest
from storage.layout import Layout
from storage.settings import settings
from tasks import sources
from tasks.audit import CLOCKS_DIFFER, Removal, forbidden
from tasks.credentials import with_keys
from tasks.dataset import Dataset
from tasks.sources.standin import Catalogue, StandIn

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY = timedelta(days=1)
Refresh = Callable[[Dataset], None]
Serve = Callable[..., StandIn]


@pytest.fixture
def site(own_root: Layout, serve: Serve) -> StandIn:
    """Four small photos that may be had."""
    photos = Catalogue.synthetic(40, min_long_px=144, max_long_px=162).listed()
    few = Catalogue()
    few.put([
        photo for photo in photos
        if photo.defect is None and photo.is_original_public and photo.original_format == "jpg"
        and photo.duplicate_of is None
    ][:4])  # fmt: skip
    return serve(few)


def held(where: Layout, name: str) -> set[str]:
    return set(catalog.held(where, name)["photo_id"].to_pylist())


@pytest.mark.usefixtures("prefect_server")
def test_an_owner_who_forbids_downloads_takes_a_held_photo_out(
    own_root: Layout, site: StandIn, refresh: Refresh, dataset: Dataset, set_clock: Callable[[timedelta], None]
) -> None:
    """With the download's own reason, and only that photo; it is asked for again, and comes back when it may."""
    refresh(dataset)
    everything = held(own_root, dataset.name)
    shy = min(everything)
    site.catalogue.change(shy, is_download_allowed=False)
    audit_dataset(dataset.name, everything=True)
    assert held(own_root, dataset.name) == everything - {shy}
    assert not forbidden(own_root, dataset.name, datetime.now(UTC))  # it is noted once
    reasons = {row["photo_id"]: row["download_reason"] for row in catalog.facts(own_root, dataset.name).to_pylist()}
    assert reasons == dict.fromkeys(everything) | {shy: "not_downloadable"}
    assert [row["attempt"] for row in attempts(own_root, dataset, shy)] == [0, 1]
    set_clock(31 * DAY)
    refresh(dataset)
    assert held(own_root, dataset.name) == everything - {shy}
    site.catalogue.change(shy, is_download_allowed=True)
    set_clock(62 * DAY)
    refresh(dataset)
    assert held(own_root, dataset.name) == everything


def attempts(where: Layout, dataset: Dataset, photo_id: str) -> list[dict[str, Any]]:
    rows = ledger.read(where, dataset.name, "attempts").to_pylist()
    return sorted((row for row in rows if row["photo_id"] == photo_id), key=lambda row: row["attempt"])


@pytest.mark.parametrize(
    ("looks", "is_out"),
    [
        ([(1, "present", False)], True), ([(1, "present", True)], False), ([(-1, "present", False)], False),
        ([(1, "present", False), (2, "present", True)], False), ([(1, "present", True), (2, "present", False)], True),
        ([(1, "gone", False)], False), ([(1, "present", False), (2, "failed", None)], True),
        ([(9, "present", False)], False),
    ],
)  # fmt: skip
def test_which_looks_forbid(where: Layout, looks: list[tuple[float, str, bool | None]], is_out: bool) -> None:
    """The last one that saw the photo, if it is later than the download and not of a clock that was ahead."""
    key = {"source": "flickr", "photo_id": "1"}
    kept = key | {"attempt": 2, "fetched_at": NOW, "sha256": "0" * 64, "format": "JPEG", "bytes": 9}
    seen = [key | {"checked_at": NOW + n * DAY, "state": s, "is_download_allowed": may} for n, s, may in looks]
    for kind, rows in (("listings", [key]), ("attempts", [kept]), ("checks", seen)):
        ledger.adopt(where, "d", manifest.write_rows(where, kind, rows))
    out = forbidden(where, "d", NOW + 3 * DAY - CLOCKS_DIFFER)
    said = max((n for n, state, _ in looks if state == "present"), default=0)
    no = {"attempt": 3, "download_reason": "not_downloadable", "fetched_at": NOW + said * DAY}
    assert out == ([key | no | {"next_try_at": NOW + (said + 30) * DAY}] if is_out else [])


@pytest.mark.usefixtures("prefect_server", "refresh")
def test_a_takedown_by_digest_finds_what_a_killed_download_left(
    own_root: Layout, site: StandIn, dataset: Dataset
) -> None:
    """The photo stands in the journal alone: its bytes and its line go at once, and the removal counts as matched."""
    flows.acquire.find(dataset)
    wanted = catalog.wanted(own_root, dataset.name, datetime.now(UTC), dataset.query_ids)
    at = tasks.download.Site(sources.named("flickr").ask(with_keys(settings())))
    with journal.keeping(own_root, dataset.name, manifest.write(own_root, "wanted", wanted).sha256) as book:
        rows = tasks.download.fetch_all(wanted.to_pylist(), at, own_root, book)
    digest = next(row["sha256"] for row in rows if row["sha256"])
    audited = audit_dataset(dataset.name, photos=0, remove=[Removal(sha256=digest, words="the owner, by letter")])
    assert (audited.removed, audited.unmatched) == (1, 0)
    assert not list((own_root.root / "blobs").rglob(f"{digest}.*"))
    assert not list(own_root.journal(dataset.name).glob("*"))
    assert digest not in ledger.read(own_root, dataset.name, "attempts")["sha256"].to_pylist()
    assert len(held(own_root, dataset.name)) == 3
