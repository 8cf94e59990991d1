"""Searches beyond what a site lists at once: complete, resumed where they were interrupted, told before they cost."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prefect import flow

from flows import acquire
from flows.refresh import refresh_dataset
from storage import catalog, ledger
from storage.layout import Layout
from storage.records import Plan
from tasks import search as searching
from tasks import web
from tasks.dataset import Dataset
from tasks.errors import SourceUnavailable
from tasks.sources import flickr, windows
from tasks.sources.base import Found, Window
from tasks.sources.standin import Catalogue, Photo, SearchHabits, StandIn, photo_search

pytestmark = pytest.mark.usefixtures("prefect_server")
KEY = "0123456789abcdef0123456789abcdef"
FAST = web.Limits(retries=1, backoff_s=0.001, pauses=1, pause_s=0.01)
CROWD, FEW = 12_000, 1200  # photos of a site: three times what a search lists, in full size and a tenth of it
Serve = Callable[..., StandIn]


@pytest.fixture(scope="module")
def crowd() -> Catalogue:
    """Three times what a search lists; their pictures are never looked at."""
    return Catalogue.synthetic(CROWD)


@pytest.fixture(scope="module")
def small_crowd() -> Catalogue:
    """A tenth of it."""
    return Catalogue.synthetic(FEW)


@pytest.fixture
def few(small_crowd: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Three times what a search lists, where a page, a search and a window all have a tenth of what they have."""
    for module, name in (
        (photo_search, "MAX_ROWS"), (photo_search, "MAX_PER_PAGE"), (flickr, "REACH"), (flickr, "PER_PAGE"),
        (windows, "TARGET"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name) // 10)
    return small_crowd


@pytest.fixture
def limits(environment: Callable[..., None]) -> web.Limits:
    """Nobody waits for a budget."""
    environment(DARKROOM_API_CALLS_PER_HOUR="100000000")
    return FAST


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over everything ever uploaded.

    Its label makes its questions its own: without it, tests that begin in one second ask for the same windows, and the
    second is given the cached answers of the first one's site.
    """
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    query = {"uploaded_after": "2004-01-01T00:00:00Z", "label": name}
    return Dataset.model_validate({"name": name, "queries": [query]})


@flow
def find(dataset: Dataset) -> None:
    """The first step of a refresh, alone."""
    acquire.find(dataset)


def photo_ids(root: Layout, dataset: Dataset) -> list[str]:
    return sorted(catalog.known(root, dataset.name)["photo_id"].to_pylist())


def truth(site: StandIn) -> list[str]:
    return sorted(photo.id for photo in site.catalogue.listed())


def searches(site: StandIn) -> int:
    return int(site.stats()["calls"].get("flickr.photos.search", 0))


def test_everything_is_found_beyond_what_a_search_lists(
    root: Layout, serve: Serve, crowd: Catalogue, dataset: Dataset
) -> None:
    """All photos of the site, each window within the site's reach, for a third of one call in a hundred photos."""
    site = serve(crowd, search_habits=SearchHabits(has_drift=True, fuzz=0.2))
    find(dataset)
    assert photo_ids(root, dataset) == truth(site)
    rows = ledger.read(root, dataset.name, "windows").to_pylist()
    listed = [row for row in rows if row["state"] in ("listed", "holey")]
    assert max(row["unique"] for row in listed) <= 1.1 * windows.TARGET
    assert sum(row["unique"] for row in listed) == CROWD
    assert sum(row["calls"] for row in rows) == site.stats()["calls_total"] <= 0.004 * CROWD


def test_naive_paging_loses_two_thirds(serve: Serve, crowd: Catalogue) -> None:
    """Whoever reads page after page gets the first 4,000 again and again: the stand-in bites."""
    site = serve(crowd)
    ask = {
        "method": "flickr.photos.search", "api_key": KEY, "format": "json", "nojsoncallback": "1", "per_page": "500",
        "min_upload_date": "2004-02-10",
    }  # fmt: skip
    found, rows = set(), 0
    for page in range(1, 25):
        photos = requests.get(site.api_url, params={**ask, "page": str(page)}, timeout=10).json()["photos"]["photo"]
        rows += len(photos)
        found |= {photo["id"] for photo in photos}
    assert (rows, len(found)) == (12_000, 4_000)


def test_a_search_again_asks_for_the_last_fortnight_only(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset
) -> None:
    """One call, not forty; a photo that was indexed late is found by it."""
    site = serve(few)
    find(dataset)
    before, asked = photo_ids(root, dataset), searches(site)
    find(dataset)
    assert searches(site) - asked == 1
    late = replace(few.listed()[0], id="77", uploaded_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=9))
    few.put([late])
    try:
        find(dataset)
        assert photo_ids(root, dataset) == sorted([*before, "77"])
    finally:
        few._photos.pop("77")


def test_an_interrupted_search_resumes_at_the_window(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed before the site broke down is not asked for again, and nothing is lost."""
    monkeypatch.setattr(acquire, "search", searching.search.with_options(retries=0))
    site = serve(few)
    another = dataset.queries[0].model_copy(update={"label": "whole"})
    find(dataset.model_copy(update={"name": f"{dataset.name}-whole", "queries": (another,)}))
    whole, list_whole = searches(site), flickr.Search.whole
    asked: list[Window] = []

    def until_the_fifth(search: flickr.Search, window: Window) -> Found:
        asked.append(window)
        if len(asked) > 4:
            raise SourceUnavailable("the site broke down")
        return list_whole(search, window)

    with monkeypatch.context() as broken, pytest.raises(SourceUnavailable, match="broke down"):
        broken.setattr(flickr.Search, "whole", until_the_fifth)
        find(dataset)
    before = searches(site)
    find(dataset)
    assert photo_ids(root, dataset) == truth(site)
    assert searches(site) - before <= whole - 3, "windows under way when it broke may be asked twice"


def burst_of_one_second(of_one_licence: int) -> Catalogue:
    """900 photos uploaded at once, so many of one licence and the others of five."""
    template, burst = Catalogue.synthetic(5).listed()[0], Catalogue()
    burst.put(
        replace(template, id=str(10**10 + n), licence=4 if n < of_one_licence else 9 + n % 5, duplicate_of=None)
        for n in range(900)
    )
    return burst


@pytest.mark.usefixtures("few")
def test_a_window_too_short_to_divide_is_asked_by_licence_and_from_both_ends(
    root: Layout, serve: Serve, dataset: Dataset
) -> None:
    """900 photos of one second: 500 of one licence and 400 of the others; all of them are found."""
    site = serve(burst_of_one_second(500))
    find(dataset)
    assert photo_ids(root, dataset) == truth(site)
    rows = ledger.read(root, dataset.name, "windows").to_pylist()
    assert max(row["total"] for row in rows if row["state"] == "listed") == 900
    assert sum(row["lost"] for row in rows) == 0


@pytest.mark.usefixtures("few")
def test_what_no_way_of_asking_shows_is_told(root: Layout, serve: Serve, dataset: Dataset) -> None:
    """1,000 photos of one second and one licence: 800 are seen from both ends, 200 stand in the ledger as lost."""
    template = Catalogue.synthetic(5).listed()[0]
    burst = Catalogue()
    burst.put(replace(template, id=str(10**10 + n)) for n in range(1000))
    serve(burst)
    find(dataset)
    assert len(photo_ids(root, dataset)) == 800
    assert sum(row["lost"] for row in ledger.read(root, dataset.name, "windows").to_pylist()) == 200


def empty_second_pages(monkeypatch: pytest.MonkeyPatch, by_licence: bool) -> None:
    """The site leaves out what stands on the second page of each search, or only of those for one licence."""
    get = web.Client.get

    def emptied(client: web.Client, url: str, **options: Any) -> web.Answer:
        answer, params = get(client, url, **options), options.get("params", {})
        if params.get("page") != "2" or (by_licence and "license" not in params):
            return answer
        reply = json.loads(answer.body)
        reply["photos"]["photo"] = []
        return replace(answer, body=json.dumps(reply).encode())

    monkeypatch.setattr(web.Client, "get", emptied)


def within(dataset: Dataset, after: datetime, before: datetime) -> Dataset:
    """``dataset`` over photos that were uploaded then."""
    query = dataset.queries[0].model_copy(update={"uploaded_after": after, "uploaded_before": before})
    return dataset.model_copy(update={"queries": (query,)})


@pytest.mark.usefixtures("few")
def test_a_window_with_holes_is_asked_again_though_its_answer_is_kept(
    root: Layout, serve: Serve, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a site left out in a bad hour is found by the next refresh, and then nothing more is asked for."""
    site = serve(Catalogue.synthetic(220))
    uploads = sorted(photo.uploaded_at for photo in site.catalogue.listed())
    dataset = within(dataset, uploads[0], uploads[-1] + timedelta(seconds=1))
    with monkeypatch.context() as bad:
        empty_second_pages(bad, by_licence=False)
        find(dataset)
    assert len(photo_ids(root, dataset)) == 170
    find(dataset)
    assert photo_ids(root, dataset) == truth(site)
    asked = searches(site)
    find(dataset)
    assert searches(site) == asked


@pytest.mark.usefixtures("few")
def test_holes_of_a_window_that_is_asked_by_licence_are_seen(
    root: Layout, serve: Serve, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 900 photos of one second those of a second page are left out: the next refresh finds them."""
    burst = burst_of_one_second(390)
    site, template = serve(burst), burst.listed()[0]
    dataset = within(dataset, template.uploaded_at, template.uploaded_at + timedelta(seconds=1))
    with monkeypatch.context() as bad:
        empty_second_pages(bad, by_licence=True)
        find(dataset)
    assert len(photo_ids(root, dataset)) < 900
    find(dataset)
    assert photo_ids(root, dataset) == truth(site)


def test_old_facts_are_looked_at_again_on_a_share_of_the_budget(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve calls look again at known photos, however many there are; their licences are what they are now."""
    site = serve(few)
    find(dataset)
    monkeypatch.setattr(windows, "revisit_after", lambda age: timedelta(0))
    monkeypatch.setattr(acquire, "FACTS_SHARE", 12 / 10**8)
    oldest = min(few.listed(), key=lambda photo: photo.uploaded_at)
    few.relicense(oldest.id, 9)
    asked = searches(site)
    find(dataset)
    assert 5 <= searches(site) - asked <= 1 + 12
    [row] = [row for row in catalog.facts(root, dataset.name).to_pylist() if row["photo_id"] == oldest.id]
    assert "CC0" in row["licence"]
    assert len(photo_ids(root, dataset)) == FEW


def test_a_limit_beyond_the_reach_takes_the_newest(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset
) -> None:
    """500 photos of 1,200: exactly the newest, window after window into the past."""
    site = serve(few)
    query = dataset.queries[0].model_copy(update={"limit": 500})
    find(dataset.model_copy(update={"queries": (query,)}))
    newest = sorted(site.catalogue.listed(), key=lambda photo: photo.uploaded_at, reverse=True)[:500]
    found = set(photo_ids(root, dataset))
    assert len(found) == 500
    edge = newest[-1].uploaded_at
    assert {photo.id for photo in newest if photo.uploaded_at > edge} <= found
    assert searches(site) < 40


def test_a_plan_tells_the_cost_and_spends_one_call_a_query(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset
) -> None:
    """Windows, calls, hours and gigabytes, near what the search then takes; nothing is listed or fetched."""
    site = serve(few)
    planned = refresh_dataset(dataset, plan_only=True)
    assert isinstance(planned, Plan)
    assert searches(site) == 1
    assert site.stats()["calls_total"] == planned.calls_spent == 2, "the other one asked for the licences"
    assert site.stats()["images_total"] == 0
    assert not root.dataset(dataset.name).exists()
    assert planned.photos == FEW
    assert planned.gigabytes > 0.1
    assert planned.hours > 0
    find(dataset)
    listing_calls = site.stats()["calls_total"] - 2
    asked_apart = sum(not photo.is_original_public for photo in few.listed())
    assert planned.calls == pytest.approx(listing_calls + asked_apart, rel=0.25)


@pytest.mark.parametrize(("deployment", "queries"), [("crops", 23), ("photos-28", 28)])
def test_the_ready_deployments_can_be_planned(
    root: Layout, serve: Serve, few: Catalogue, deployment: str, queries: int
) -> None:
    """Every term and every category has its row."""
    serve(few)
    project = yaml.safe_load(Path(__file__).parents[2].joinpath("prefect.yaml").read_text())
    [parameters] = [
        each["parameters"] for each in project["deployments"]
        if each["name"] == deployment and each["entrypoint"].endswith("refresh_dataset")
    ]  # fmt: skip
    planned = refresh_dataset(Dataset.model_validate(parameters["dataset"]), plan_only=True)
    assert isinstance(planned, Plan)
    assert len(planned.queries) == queries
    assert planned.photos == sum(row.photos for row in planned.queries) > 0
    assert planned.calls >= queries


def test_more_windows_than_a_run_may_ask_are_left_for_the_next(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks no more windows than it shows well in the UI; refresh after refresh the dataset becomes whole."""
    site = serve(few)
    monkeypatch.setattr(acquire, "MAX_WINDOWS", 12)
    sizes = []
    while len(sizes) < 8 and (not sizes or sizes[-1] < FEW):
        find(dataset)
        sizes.append(len(photo_ids(root, dataset)))
    assert photo_ids(root, dataset) == truth(site)
    assert sizes == sorted(sizes)
    assert 1 < len(sizes) < 8


def test_no_query_waits_for_another(
    root: Layout, serve: Serve, few: Catalogue, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that may not ask all windows asks some of every query, not all of the first."""
    serve(few)
    queries = [dataset.queries[0].model_copy(update={"label": label}) for label in ("sea", "boat", "hill")]
    monkeypatch.setattr(acquire, "MAX_WINDOWS", 30)
    find(dataset.model_copy(update={"queries": tuple(queries)}))
    rows = ledger.read(root, dataset.name, "windows").to_pylist()
    asked = [sum(row["query_id"] == query.query_id for row in rows) for query in queries]
    assert sum(asked) == 30
    assert max(asked) - min(asked) <= 2


def sound(catalogue: Catalogue) -> list[Photo]:
    return [photo for photo in catalogue.listed() if photo.defect is None and photo.is_original_public]


def test_a_licence_that_nobody_explains_is_quarantined(root: Layout, serve: Serve, dataset: Dataset) -> None:
    """Licence 17: the photo has a row with that reason and no file; when Flickr lists the licence, it is fetched."""
    site = serve(Catalogue.synthetic(60, min_long_px=144, max_long_px=162))
    photo = sound(site.catalogue)[0]
    site.catalogue.change(photo.id, licence=17)
    find(dataset)
    assert photo.id not in catalog.wanted(root, dataset.name, datetime.now(UTC))["photo_id"].to_pylist()
    [row] = [r for r in catalog.facts(root, dataset.name).to_pylist() if r["photo_id"] == photo.id]
    assert (row["licence"], row["download_reason"], row["sha256"]) == ("unknown:17", "unknown_licence", None)
