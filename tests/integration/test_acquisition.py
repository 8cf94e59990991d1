"""Search and download against the stand-in photo site, over real HTTP, into real Parquet."""

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from storage import manifest
from storage.layout import Layout
from storage.settings import apply_environment
from tasks import web
from tasks.errors import (
    CredentialsRejected,
    DarkroomError,
    PermanentSourceError,
    RateLimited,
    SourceChanged,
    SourceUnavailable,
)
from tasks.search import SearchOutcome, search
from tasks.sources.base import Query
from tasks.sources.flickr_api import TooManyResults
from tasks.sources.standin import Catalogue, Fault, Keys, Photo, SearchHabits, StandIn

KEY = "0123456789abcdef0123456789abcdef"
SHORT = web.Limits(
    connect_s=5, read_s=5, deadline_s=10, retries=1, backoff_s=0.001, backoff_max_s=0.002, pauses=1, pause_s=0.01,
    pause_max_s=1, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip
IMPATIENT = {"stall": replace(SHORT, read_s=0.5), "slow_drip": replace(SHORT, deadline_s=0.5)}
PAST = datetime(2003, 1, 1, tzinfo=UTC)
EVERYTHING = Query(uploaded_after=PAST)


@pytest.fixture
def limits() -> web.Limits:
    """A client that gives up soon."""
    return SHORT


Serve = Callable[..., StandIn]


def point_at(url: str, key: str = KEY) -> None:
    hosts = urlsplit(url).netloc
    apply_environment(FLICKR_API_KEY=key, DARKROOM_FLICKR_URL=f"{url}/services/rest/", DARKROOM_IMAGE_HOSTS=hosts)


@pytest.fixture(scope="module")
def many() -> Catalogue:
    """Photos whose pictures are never looked at; two pages of them."""
    return Catalogue.synthetic(700)


@pytest.fixture(scope="module")
def few() -> Catalogue:
    """One page of photos whose pictures are never looked at."""
    return Catalogue.synthetic(40)


@pytest.fixture(scope="module")
def small() -> Catalogue:
    """A photo of every kind of trouble, few pixels each."""
    return Catalogue.synthetic(70, min_long_px=144, max_long_px=162)


def rows_of(root: Layout, outcome: SearchOutcome) -> list[dict[str, Any]]:
    return manifest.read(root, outcome.listings).to_pylist()


def window_of(root: Layout, outcome: SearchOutcome) -> dict[str, Any]:
    (window,) = manifest.read(root, outcome.windows).to_pylist()
    return window


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["photo_id"] for row in rows)


def test_a_search_finds_every_photo_with_its_facts(root: Layout, serve: Serve, many: Catalogue) -> None:
    """What the site lists is what the manifest holds: each photo once, its facts those of the site."""
    site = serve(many)
    outcome = search.fn("flickr", EVERYTHING)
    rows, truth = rows_of(root, outcome), {photo.id: photo for photo in many.listed()}
    assert ids(rows) == sorted(truth)
    for row in rows:
        photo = truth[row["photo_id"]]
        assert (row["owner_id"], row["owner_name"]) == (photo.owner.nsid, photo.owner.username)
        assert (row["title"] or "", tuple(row["tags"])) == (photo.title, photo.tags)
        assert row["uploaded_at"] == photo.uploaded_at
        assert row["taken_at"] == (photo.taken_at and photo.taken_at.replace(microsecond=0))
        assert (row["latitude"], row["longitude"]) == (photo.location or (None, None))
        assert row["page_url"] == f"{site.url}/photos/{photo.owner.nsid}/{photo.id}/", "no page of Flickr's"
        assert (row["image_url"] is not None and row["size_label"] == "Original") is photo.is_original_public
    names = {(truth[row["photo_id"]].licence, row["licence"]) for row in rows}
    assert len(names) == len({number for number, _ in names}) == 17
    window = window_of(root, outcome)
    assert (window["total"], window["unique"], window["pages"], window["calls"]) == (len(truth), len(truth), 2, 3)


def test_text_and_tags_narrow_a_search(root: Layout, serve: Serve, many: Catalogue) -> None:
    """A tag finds the photos that carry it, all tags are needed, and a minus takes some away."""
    site = serve(many)
    tag, other = (name for name, _ in Counter(tag for photo in many.listed() for tag in photo.tags).most_common(2))
    for tags in ((tag,), (tag, other), (tag, f"-{other}")):
        expected = [
            p.id for p in many.listed() if tag in p.tags and (len(tags) == 1 or (other in p.tags) is (tags[1] == other))
        ]
        assert ids(rows_of(root, search.fn("flickr", Query(tags=tags)))) == sorted(expected)
    rows = rows_of(root, search.fn("flickr", Query(text=tag, label="sea")))
    assert {photo.id for photo in many.listed() if tag in photo.tags} <= set(ids(rows))
    assert {row["label"] for row in rows} == {"sea"}
    assert site.stats()["calls"]["flickr.photos.search"] == 4


def test_a_place_is_searched_beyond_twelve_hours(root: Layout, serve: Serve, many: Catalogue) -> None:
    """A bounding box finds the photos taken inside it, however old."""
    serve(many)
    inside = [p.id for p in many.listed() if p.location and 40 <= p.location[0] <= 60 and -10 <= p.location[1] <= 20]
    assert inside
    assert ids(rows_of(root, search.fn("flickr", Query(bbox=(-10, 40, 20, 60))))) == sorted(inside)


def test_dates_and_licences_narrow_a_search(root: Layout, serve: Serve, many: Catalogue) -> None:
    """Both ends of a period belong to it; only the licences that were asked for are found."""
    serve(many)
    uploads = sorted(photo.uploaded_at for photo in many.listed())
    query = Query(uploaded_after=uploads[10], uploaded_before=uploads[20], licences=("0", "4", "11"))
    wanted = [p.id for p in many.listed() if uploads[10] <= p.uploaded_at <= uploads[20] and p.licence in (0, 4, 11)]
    outcome = search.fn("flickr", query)
    assert ids(rows_of(root, outcome)) == sorted(wanted)
    window = window_of(root, outcome)
    assert (window["uploaded_after"], window["uploaded_before"]) == (uploads[10], uploads[20] + timedelta(seconds=1))


def test_limit_and_pages_stop_a_search(root: Layout, serve: Serve, many: Catalogue) -> None:
    """A limit takes the newest, start_page and max_pages read these pages only; no call is spent beyond."""
    site = serve(many)
    newest = [p.id for p in sorted(many.listed(), key=lambda p: (p.uploaded_at, p.id), reverse=True)]
    assert ids(rows_of(root, search.fn("flickr", Query(uploaded_after=PAST, limit=7)))) == sorted(newest[:7])
    assert site.stats()["calls"]["flickr.photos.search"] == 1
    one_page = search.fn("flickr", Query(uploaded_after=PAST, start_page=0, max_pages=1))
    assert ids(rows_of(root, one_page)) == sorted(newest[:500])
    second = search.fn("flickr", Query(uploaded_after=PAST, start_page=2, max_pages=3))
    assert ids(rows_of(root, second)) == sorted(newest[500:])
    assert site.stats()["calls"]["flickr.photos.search"] == 3


def test_a_search_stops_where_flickr_repeats_itself(root: Layout, serve: Serve, many: Catalogue) -> None:
    """Of 4,200 photos asked for without windows 4,000 are listed: eight pages, nothing twice, and only a sample. One
    page is read once more, as the next one counts fewer.
    """
    template = many.listed()[0]
    crowd = Catalogue()
    crowd.put(
        replace(template, id=str(10**10 + n), uploaded_at=template.uploaded_at + timedelta(seconds=n))
        for n in range(4200)
    )
    site = serve(crowd, search_habits=SearchHabits(has_drift=True))
    outcome = search.fn("flickr", EVERYTHING)
    window = window_of(root, outcome)
    assert (window["unique"], window["pages"], len(set(ids(rows_of(root, outcome))))) == (4000, 9, 4000)
    assert window["total"] == pytest.approx(4200, rel=0.03)
    assert window["state"] == "sampled"
    assert site.stats()["calls"]["flickr.photos.search"] == 9


class Growing(Catalogue):
    """A site to which somebody uploads a photo between any two questions."""

    def photos(self) -> list[Photo]:
        photos = super().photos()
        newest = max(photos, key=lambda photo: photo.uploaded_at)
        self.put([replace(newest, id=f"9{newest.id}", uploaded_at=newest.uploaded_at + timedelta(seconds=1))])
        return photos


def test_a_photo_that_slides_to_the_next_page_is_listed_once(root: Layout, serve: Serve, many: Catalogue) -> None:
    """Uploads during a search push photos from page to page: they are read twice and kept once."""
    growing = Growing()
    growing.put(many.photos())
    serve(growing)
    found_ids = ids(rows_of(root, search.fn("flickr", EVERYTHING)))
    assert len(found_ids) == len(set(found_ids))
    assert {photo.id for photo in many.listed()} <= set(found_ids)


def test_a_hidden_original_leaves_the_next_size(root: Layout, serve: Serve, many: Catalogue) -> None:
    """Where an owner shows no original the largest rendition stands in, and is named as such."""
    serve(many)
    hidden = {photo.id for photo in many.listed() if not photo.is_original_public}
    rows = [row for row in rows_of(root, search.fn("flickr", EVERYTHING)) if row["photo_id"] in hidden]
    assert rows
    assert all(row["size_label"].startswith("Large") and row["fallbacks"] for row in rows)


def test_an_empty_result_is_an_empty_manifest(root: Layout, serve: Serve, many: Catalogue) -> None:
    """Nothing found is no error of the search: it asked, and the ledger knows."""
    serve(many)
    outcome = search.fn("flickr", Query(text="qwertzuiop"))
    assert (outcome.listings.rows, outcome.windows.rows) == (0, 1)
    assert window_of(root, outcome)["total"] == 0


@pytest.mark.parametrize(
    "kind",
    [
        "code_0", "code_10", "code_105", "code_201", "half_body", "html", "trailing_comma", "http_500", "http_502",
        "stall", "reset",
    ],
)  # fmt: skip
def test_a_passing_fault_is_asked_again(serve: Serve, few: Catalogue, kind: str) -> None:
    """One bad answer in the middle of a search costs a call and no photo."""
    site = serve(few, faults=[Fault("api", kind, times=1, match="search", seconds=0.7)])
    web.client().limits = IMPATIENT.get(kind, SHORT)
    outcome = search.fn("flickr", EVERYTHING)
    assert outcome.listings.rows == len(few.listed())
    assert sum(site.stats()["faults"].values()) == 1


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("code_105", SourceUnavailable, "105"),
        ("code_0", SourceUnavailable, "later"),
        ("half_body", SourceChanged, "cannot be read"),
        ("html", SourceChanged, "cannot be read"),
        ("trailing_comma", SourceChanged, "cannot be read"),
        ("http_500", SourceUnavailable, "HTTP 500"),
        ("http_403", PermanentSourceError, "HTTP 403"),
        ("reset", SourceUnavailable, "reached"),
        ("code_1", PermanentSourceError, "change the query"),
        ("code_20", TooManyResults, "narrow it"),
        ("code_100", CredentialsRejected, "not accepted"),
        ("http_429", RateLimited, "run again"),
    ],
)
def test_a_lasting_fault_ends_the_search(
    serve: Serve, few: Catalogue, caplog: pytest.LogCaptureFixture, kind: str, error: type[DarkroomError], says: str
) -> None:
    """Its class says whether to wait, to change something or to give up; the key is in no word of it and in no log."""
    site = serve(few, faults=[Fault("api", kind, match="search")])
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match=says) as caught:
        search.fn("flickr", EVERYTHING)
    assert type(caught.value) is error
    assert KEY not in caplog.text
    assert KEY not in "".join(map(repr, chain(caught.value)))
    assert site.stats()["calls"]["flickr.photos.search"] <= 4
    if isinstance(caught.value, SourceChanged):
        assert "api_key=***" in caught.value.url


def chain(error: BaseException | None) -> Iterator[object]:
    """An exception, its attributes, and all that it carries along."""
    while error is not None:
        yield from (error, vars(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_spent_quota_says_when_to_come_back(serve: Serve, few: Catalogue) -> None:
    """An hour's pause is not waited for inside a task: the error carries it."""
    serve(few, faults=[Fault("api", "http_429", retry_after_s=3600)])
    with pytest.raises(RateLimited) as caught:
        search.fn("flickr", EVERYTHING)
    assert caught.value.retry_after_s == pytest.approx(3600, abs=60)


def test_a_quota_without_a_date_is_waited_for_and_then_told(serve: Serve, many: Catalogue) -> None:
    """Two calls an hour are one too few: after its pauses the search ends, and says that it may be run again."""
    site = serve(many, quota_per_hour=2)
    with pytest.raises(RateLimited, match="run again in a while"):
        search.fn("flickr", EVERYTHING)
    assert site.stats()["calls_refused"] == 1 + SHORT.pauses


def test_a_short_complaint_is_waited_for(serve: Serve, many: Catalogue) -> None:
    """Two refusals in a row cost time and no photo."""
    site = serve(many, faults=[Fault("api", "http_429", times=2)])
    web.client().limits = replace(SHORT, pauses=2)
    assert search.fn("flickr", EVERYTHING).listings.rows == len(many.listed())
    assert site.stats()["faults"] == {"api.http_429": 2}


@pytest.mark.parametrize(
    ("key", "says"),
    [("", "set FLICKR_API_KEY"), ("nonsense", "malformed"), ("e" * 32, "expired"), ("a" * 32, "malformed")],
)
@pytest.mark.usefixtures("prefect_server")  # where a key could lie, too
def test_a_bad_key_ends_the_search_with_one_call(serve: Serve, few: Catalogue, key: str, says: str) -> None:
    """Missing, malformed and expired are told apart, with the page that gives keys; nothing is asked twice."""
    site = serve(few, keys=Keys(only=KEY, expired=frozenset({"e" * 32})))
    point_at(site.url, key)
    with pytest.raises(CredentialsRejected, match=says) as caught:
        search.fn("flickr", EVERYTHING)
    assert "https://www.flickr.com/services/apps/create/" in str(caught.value)
    assert site.stats()["calls_total"] == (1 if key else 0)


def test_an_unreachable_site_is_named(serve: Serve, few: Catalogue) -> None:
    """Nobody listens there: the host is named, and what to check."""
    serve(few)
    point_at(f"http://{unused()}")
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:\d+ gave no usable answer \(no connection\).*reached"):
        search.fn("flickr", EVERYTHING)


def unused() -> str:
    """An address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
