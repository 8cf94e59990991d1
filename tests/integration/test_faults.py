"""Every fault that a site is known for, at 3 % and at 30 %: nothing is lost, nothing comes twice, and it ends."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

import flows.acquire
import flows.refresh
from storage import ledger
from storage.layout import Layout
from tasks import publish, web
from tasks.dataset import Dataset
from tasks.errors import EmptyResult, PermanentSourceError, RateLimited, SourceUnavailable
from tasks.sources import flickr, px500, px500_api, windows
from tasks.sources.standin import Catalogue, Fault, Photo, Px500Habits, StandIn
from tasks.sources.standin.faults import FaultScript
from tasks.sources.standin.px500_rows import base62, is_nsfw

pytestmark = pytest.mark.timeout(90)
RATES = (0.03, 0.3)
FEW = 8  # photos at the lower rate
MONTH = timedelta(days=31)
UNMIXED = Px500Habits(is_mixed=False)
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
Request = tuple[str, str, str]  # as faults are drawn
Serve = Callable[..., StandIn]
Refresh = Callable[[Dataset], None]
Account = Callable[[Layout, str, set[str]], dict[str, Row]]


@pytest.fixture(scope="module")
def sound() -> list[Photo]:
    """Small photos with nothing wrong, each made once already, so that the site is fast."""
    world = Catalogue.synthetic(110, min_long_px=144, max_long_px=162)
    photos = [p for p in world.listed() if p.defect is None and p.is_original_public and is_jpeg_of_its_own(p)][:60]
    assert len({world.original(photo.id) for photo in photos}) == 60
    return photos


def is_jpeg_of_its_own(photo: Photo) -> bool:
    return photo.original_format == "jpg" and photo.duplicate_kind is None


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
    limits = {"stall": {"read_s": 0.25}, "slow_drip": {"deadline_s": 0.5}}.get(kind, {})
    web.client().limits = replace(web.LIMITS, **limits)


def struck(site: StandIn) -> int:
    return sum(site.stats()["faults"].values())


@pytest.fixture(scope="module")
def heard() -> dict[str, list[Request]]:
    """By the dataset's source: what a site is asked when nothing goes wrong."""
    return {}


@pytest.fixture
def sown(
    own_root: Layout, serve: Serve, refresh: Refresh, monkeypatch: pytest.MonkeyPatch, environment: Callable[..., None],
    heard: dict[str, list[Request]], tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Fault]:  # fmt: skip
    """A fault with the first seed under which it strikes: three requests in a hundred may well be none of thirty."""

    def listen(dataset: Dataset, photos: list[Photo]) -> list[Request]:
        asked: list[Request] = []
        with monkeypatch.context() as ears:
            ears.setattr(FaultScript, "draw", lambda script, *request: asked.append(request))
            environment(DARKROOM_ROOT=str(tmp_path_factory.mktemp("heard")))
            serve(filled(photos), px500_habits=UNMIXED)
            refresh(dataset)
        environment(DARKROOM_ROOT=str(own_root.root))
        web.client.cache_clear()
        return asked

    def sow(fault: Fault, dataset: Dataset, photos: list[Photo]) -> Fault:
        if dataset.source not in heard:
            heard[dataset.source] = listen(dataset, photos)
        for seed in count():
            found = replace(fault, seed=seed)
            script = FaultScript((found,))
            if any(script.draw(*request) for request in heard[dataset.source]):
                return found
        raise AssertionError("no seed")

    return sow


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", API_KINDS)
def test_a_fault_of_the_api_loses_no_photo(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset, kind: str,
    rate: float, sown: Callable[..., Fault],
) -> None:  # fmt: skip
    """With three calls in a hundred failing, or three in ten, a few refreshes find every photo; each window is listed
    once, and few calls are made beyond those that failed and those that the ledger counts.
    """
    photos, fault = sound[:20] if kind == "stall" else sound, Fault("api", kind, rate, seconds=0.4)
    if rate == min(RATES):
        photos, fault = sound[:FEW], sown(fault, dataset, sound[:FEW])
    site = serve(filled(photos), faults=[fault])
    impatient(kind)
    until_it_ends_well(refresh, dataset)
    account(own_root, dataset.name, ids(site))
    rows = ledger.read(own_root, dataset.name, "windows").to_pylist()
    assert sum(row["unique"] for row in rows if row["state"] == "listed") == len(ids(site)), "none was listed twice"
    assert sum(row["lost"] for row in rows) == 0
    needed = sum(row["pages"] for row in rows) + 1  # for the licences
    assert (0 if rate == min(RATES) else 5) < struck(site) <= site.stats()["calls_total"] - needed <= struck(site) + 5


def until_it_ends_well(refresh: Refresh, dataset: Dataset, runs: int = 6) -> None:
    """Refresh again after a failure, which is one sentence."""
    said = []
    while len(said) < runs:
        try:
            refresh(dataset)
            break
        except (SourceUnavailable, PermanentSourceError) as error:
            said.append(str(error))
    assert len(said) < runs, said
    assert "\n" not in "".join(said)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", [*PASSING, *FINAL])
def test_a_fault_of_the_image_host_loses_no_photo(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    set_clock: Callable[[timedelta], None], kind: str, rate: float, sown: Callable[..., Fault],
) -> None:  # fmt: skip
    """What three requests in a hundred, or in ten, are denied today, later refreshes fetch; what is refused for good
    has its reason. No file is sent again but where what came was useless.
    """
    photos, fault = sound[:40] if kind in ("stall", "slow_drip") else sound, Fault("image", kind, rate, seconds=0.9)
    if rate == min(RATES):
        photos, fault = sound[:FEW], sown(fault, dataset, sound[:FEW])
    site = serve(filled(photos), faults=[fault])
    impatient(kind)
    for month in range(8):
        set_clock(month * MONTH)
        until_it_ends_well(refresh, dataset)
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


@pytest.mark.usefixtures("prefect_server", "small_windows")
def test_all_faults_at_once_lose_no_photo(
    own_root: Layout, serve: Serve, account: Account, sound: list[Photo], dataset: Dataset,
    set_clock: Callable[[timedelta], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each kind at 3 %, on the API and on the image host, under Prefect: each refresh that ends well publishes every
    photo once, and a few months later each has its file or was refused for good.
    """
    for name in ("search", "download"):
        task = getattr(flows.acquire, name)
        monkeypatch.setattr(flows.acquire, name, task.with_options(retry_delay_seconds=0.05))
    monkeypatch.setattr(windows, "TARGET", 12)  # fewer tasks of more calls: it is Prefect that takes its time
    faults = [Fault("api", kind, 0.03, seconds=0.6) for kind in API_KINDS]
    faults += [Fault("image", kind, 0.03, seconds=0.6) for kind in (*PASSING, *FINAL, "http_403")]
    site = serve(filled(sound), faults=faults)
    web.client().limits = replace(web.LIMITS, read_s=0.4, deadline_s=0.5)
    for month in range(6):
        set_clock(month * MONTH)
        try:
            snapshot = flows.refresh.refresh_dataset(dataset, allow_jump=True)
        except (SourceUnavailable, PermanentSourceError):
            continue
        rows = publish.published(own_root, dataset.name, snapshot.version).to_pylist()
        assert sorted(row["photo_id"] for row in rows) == sorted(ids(site))
        if not {row["download_reason"] for row in rows} - {None, *FINAL.values()}:
            break
    latest = account(own_root, dataset.name, ids(site))
    assert {row["download_reason"] for row in latest.values()} <= {None, *FINAL.values()}
    assert len(site.stats()["faults"]) > 20
    assert site.stats()["images_total"] <= len(sound) + 2 * struck(site)


PX500_KINDS = (
    "code_1503", "http_403", "http_422", "http_429", "http_500", "half_body", "html", "trailing_comma", "stall", "reset"
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "kind"), [*(("api", kind) for kind in PX500_KINDS), ("image", "http_403"), ("image", "http_429")]
)
@pytest.mark.parametrize("rate", RATES)
def test_a_fault_of_500px_loses_no_photo(
    own_root: Layout, serve: Serve, refresh: Refresh, account: Account, sound: list[Photo], dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[timedelta], None], asked: str, kind: str, rate: float,
    sown: Callable[..., Fault],
) -> None:  # fmt: skip
    """Three requests in a hundred, or in ten, fail: a walk goes on, or ends with a sentence at the first call that
    nothing helps; when the site is well again every photo is there, each fetched once.
    """
    monkeypatch.setattr(px500, "PAGE", 4)
    px500_api.session.cache_clear()
    photos = [replace(photo, title="Travel notes") for photo in sound if not is_nsfw(photo)][:32]
    query = {"text": "Travel notes", "label": dataset.name}
    dataset = Dataset.model_validate({"name": dataset.name, "source": "500px", "queries": [query]})
    fault = Fault(asked, kind, rate, seconds=0.5)
    if rate == min(RATES):
        fault = sown(fault, dataset, photos := photos[:FEW])
        px500_api.session.cache_clear()
    site = serve(filled(photos), faults=[fault], px500_habits=UNMIXED)
    impatient(kind)
    for _ in range(1 if rate == min(RATES) else 3):
        with contextlib.suppress(SourceUnavailable, PermanentSourceError, RateLimited, EmptyResult):
            refresh(dataset)
    site.faults.clear()
    set_clock(MONTH)  # a photo that was denied twice is left alone for so long
    refresh(dataset)
    latest = account(own_root, dataset.name, {base62(photo.id) for photo in photos})
    assert {row["download_reason"] for row in latest.values()} <= {None, "no_image_url"}
    may_be_taken = sum(row["download_reason"] is None for row in latest.values())
    files, answers = site.stats()["px500_images"], struck(site)
    assert files["200"] == may_be_taken
    assert 0 < sum(files.values()) - may_be_taken + (asked == "api") <= answers + 1
    assert site.stats()["px500_calls"]["searchResource"] <= 4 * (len(photos) // px500.PAGE + 3) + answers
