"""Every fault that a site is known for, at 3 % and at 30 %: nothing is lost, nothing comes twice, and it ends."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storage import ledger
from storage.layout import Layout
from tasks import web
from tasks.dataset import Dataset
from tasks.errors import PermanentSourceError, SourceUnavailable
from tasks.sources import flickr, windows
from tasks.sources.standin import Catalogue, Fault, Photo, StandIn

pytestmark = pytest.mark.timeout(90)
RATES = (0.03, 0.3)
MONTH = timedelta(days=31)
API_KINDS = (
    "code_0", "code_10", "code_105", "code_201", "http_429", "http_500", "http_502", "half_body", "html",
    "trailing_comma", "stall", "reset",
)  # fmt: skip
PASSING = (
    "http_404", "http_429", "http_500", "http_503", "truncated", "zero_bytes", "html", "corrupt", "truncated_stream",
    "slow_drip", "stall", "reset", "redirect_unavailable", "length_long", "length_short", "odd_headers",
)  # fmt: skip
FINAL = {"noimageai": "opted_out", "bomb": "too_many_pixels", "length_huge": "too_large", "png_named_jpg": None}
Row = dict[str, Any]
Serve = Callable[..., StandIn]
Refresh = Callable[[Dataset], None]
Account = Callable[[Layout, str, set[str]], dict[str, Row]]


@pytest.fixture(scope="module")
def sound() -> list[Photo]:
    """Small photos with nothing wrong."""
    photos = Catalogue.synthetic(110, min_long_px=144, max_long_px=162).listed()
    return [p for p in photos if p.defect is None and p.is_original_public and is_jpeg_of_its_own(p)][:60]


def is_jpeg_of_its_own(photo: Photo) -> bool:
    return photo.original_format == "jpg" and photo.duplicate_kind is None


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over all photos of the site, in a window that is closed."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    query = {"uploaded_after": "2024-01-01T00:00:00Z", "uploaded_before": "2026-01-10T00:00:00Z", "label": name}
    return Dataset.model_validate({"name": name, "queries": [query], "filter": {"min_long_px": 72, "min_short_px": 72}})


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a page had one photo and a search were too large with five: many calls for few photos."""
    monkeypatch.setattr(windows, "TARGET", 4)
    monkeypatch.setattr(flickr, "PER_PAGE", 1)


def filled(photos: list[Photo]) -> Catalogue:
    catalogue = Catalogue()
    catalogue.put(photos)
    return catalogue


def ids(site: StandIn) -> set[str]:
    return {photo.id for photo in site.catalogue.listed()}


def impatient(kind: str) -> None:
    """Wait less than the fault lasts."""
    limits = {"stall": {"read_s": 0.25}, "slow_drip": {"deadline_s": 0.25}}.get(kind, {})
    web.client().limits = replace(web.LIMITS, **limits)


def struck(site: StandIn) -> int:
    return sum(site.stats()["faults"].values())


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("kind", API_KINDS)
def test_a_fault_of_the_api_loses_no_photo(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset, kind: str
) -> None:
    """With three calls in ten failing, a few refreshes find every photo; each window is listed once, and few calls are
    made beyond those that failed and those that the ledger counts.
    """
    site = serve(filled(sound[:20] if kind == "stall" else sound), faults=[Fault("api", kind, 0.3, seconds=0.4)])
    impatient(kind)
    until_it_ends_well(refresh, dataset)
    account(own_root, dataset.name, ids(site))
    rows = ledger.read(own_root, dataset.name, "windows").to_pylist()
    assert sum(row["unique"] for row in rows if row["state"] == "listed") == len(ids(site)), "none was listed twice"
    assert sum(row["lost"] for row in rows) == 0
    needed = sum(row["pages"] for row in rows) + 1  # for the licences
    assert 5 < struck(site) <= site.stats()["calls_total"] - needed <= struck(site) + 5


def until_it_ends_well(refresh: Refresh, dataset: Dataset, runs: int = 6) -> None:
    """Refresh again after a failure, which is one sentence."""
    for left in reversed(range(runs)):
        try:
            return refresh(dataset)
        except (SourceUnavailable, PermanentSourceError) as error:
            assert left, "it never ended well"
            assert "\n" not in str(error)


@pytest.mark.parametrize("kind", [*PASSING, *FINAL])
def test_a_fault_of_the_image_host_loses_no_photo(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    set_clock: Callable[[timedelta], None], kind: str,
) -> None:  # fmt: skip
    """What three requests in ten are denied today, later refreshes fetch; what is refused for good has its reason. No
    file is sent again but where what came was useless.
    """
    photos = sound[:40] if kind in ("stall", "slow_drip") else sound
    site = serve(filled(photos), faults=[Fault("image", kind, 0.3, seconds=0.4)])
    impatient(kind)
    for month in range(8):
        set_clock(month * MONTH)
        refresh(dataset)
        attempts = ledger.read(own_root, dataset.name, "attempts").to_pylist()
        tried = {row["photo_id"]: row for row in sorted(attempts, key=lambda row: row["attempt"])}
        if all(row["next_try_at"] is None for row in tried.values()):
            break
    latest = account(own_root, dataset.name, ids(site))
    reasons = {row["download_reason"] for row in latest.values()}
    assert reasons == {None, FINAL.get(kind)}
    wasted = 0 if kind in FINAL else struck(site) * (2 if kind == "redirect_unavailable" else 1)
    assert struck(site) > 0
    assert site.stats()["images_total"] <= len(photos) + wasted + 5
