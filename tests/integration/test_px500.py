"""The source 500px against the stand-in, over real HTTP, into real Parquet."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from storage import catalog, ledger, manifest
from storage.layout import Layout
from storage.settings import apply_environment, settings
from tasks import web
from tasks.download import download
from tasks.errors import PermanentSourceError, RateLimited, SourceChanged, SourceUnavailable
from tasks.search import search
from tasks.sources import named
from tasks.sources.base import Found, Query
from tasks.sources.px500_api import TRIES, session
from tasks.sources.standin import Catalogue, HostHabits, Photo, Px500Habits, StandIn
from tasks.sources.standin.px500_rows import base62, category_of, is_nsfw

SHORT = web.Limits(
    connect_s=5, read_s=5, deadline_s=10, retries=1, backoff_s=0.001, backoff_max_s=0.002, pauses=1, pause_s=0.01,
    pause_max_s=1, api_per_s=10_000, api_burst=1000, images_per_s=10_000, images_burst=1000,
)  # fmt: skip
PLAIN = Px500Habits(is_mixed=False)
Serve = Callable[..., StandIn]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, environment: object) -> Iterator[Serve]:
    """Starts a stand-in and points the environment at it, and at no other image host; the client hardly waits."""
    monkeypatch.setattr(web, "LIMITS", SHORT)
    web.client.cache_clear()
    session.cache_clear()
    running: list[StandIn] = []

    def start(catalogue: Catalogue, **options: Any) -> StandIn:
        site = StandIn(catalogue, **options)
        running.append(site.__enter__())
        apply_environment(FLICKR_API_KEY="0" * 32, DARKROOM_PX500_URL=site.px500_url, DARKROOM_IMAGE_HOSTS="")
        return site

    yield start
    web.client().close()
    web.client.cache_clear()
    session.cache_clear()
    for site in running:
        site.__exit__(None, None, None)


@pytest.fixture(scope="module")
def many() -> Catalogue:
    """400 photos in one category, whose pictures are never looked at."""
    catalogue = Catalogue.synthetic(400, seed=2, min_long_px=160, max_long_px=160)
    for photo in catalogue.photos():
        catalogue.change(photo.id, title="Travel notes", updated_at=photo.updated_at)
    return catalogue


@pytest.fixture
def few() -> Catalogue:
    """30 photos that a test may change."""
    return Catalogue.synthetic(30, min_long_px=160, max_long_px=160)


def found(query: Query | None = None, known: frozenset[str] = frozenset()) -> Found:
    return named("500px").search(query or Query(category="Travel"), None, known, settings())


def row_of(listings: list[dict[str, Any]], photo: Photo) -> dict[str, Any]:
    return next(row for row in listings if row["photo_id"] == base62(photo.id))


def usable(catalogue: Catalogue) -> tuple[Photo, dict[str, Any]]:
    """A sound photo with an address, and its row."""
    for photo in catalogue.listed():
        category = category_of(photo)
        rows = [row for row in found(Query(category=category)).listings if row["photo_id"] == base62(photo.id)]
        if photo.defect is None and rows and rows[0]["image_url"]:
            return photo, rows[0]
    raise AssertionError("no photo can be taken")


@pytest.mark.parametrize("habits", [Px500Habits(), Px500Habits(is_strict=False), Px500Habits(gives_cookie=False)])
def test_every_photo_of_a_category_is_found(root: Layout, serve: Serve, many: Catalogue, habits: Px500Habits) -> None:
    """Strict or lenient, with the site's token or our own: what is listed and safe is in the manifest, once."""
    site = serve(many, px500_habits=habits)
    outcome = search.fn("500px", Query(category="Travel", limit=5000), None)
    rows = manifest.read(root, outcome.listings).to_pylist()
    truth = {base62(photo.id): photo for photo in many.listed()}
    assert len({row["photo_id"] for row in rows}) == len(rows)
    missing = set(truth) - {row["photo_id"] for row in rows}
    assert {row["photo_id"] for row in rows} <= set(truth)
    assert 0 < len(missing) < 40
    assert all(is_nsfw(truth[photo_id]) for photo_id in missing)
    for row in rows:
        photo = truth[row["photo_id"]]
        assert row["page_url"] == f"{site.url}/photo/{row['photo_id']}"
        assert row["uploaded_at"] in (None, photo.uploaded_at)
        assert row["label"] == "Travel"
        assert row["licence"] == "unstated" or row["licence"].startswith("500px: ")
    assert 0 < sum(row["image_url"] is None for row in rows) < len(rows) / 2
    [window] = manifest.read(root, outcome.windows).to_pylist()
    total = len(many.listed()) + sum(1 for _ in range(8, len(many.listed()), 17)) * habits.is_mixed
    assert window["state"] == "listed"
    assert window["unique"] == len(rows)
    assert abs(window["total"] - total) <= 3
    assert window["pages"] == -(-window["total"] // 30)


def test_what_may_not_be_taken_is_listed_without_an_address(
    serve: Serve, many: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    """Generated, behind a login, in review, not for download, not for machines: rows without a picture, and a log."""
    site = serve(many, px500_habits=Px500Habits(has_ai_opt_in=True))
    with caplog.at_level(logging.INFO):
        rows = {row["photo_id"]: row for row in found(Query(category="Travel", limit=5000)).listings}
    refused = 0
    for photo in many.listed():
        node = site.px500.node(photo)
        is_refused = node["needLoginToView"] or node["isInReview"] or node["taggedAigc"] or node["userDeclaredAigc"]
        is_refused = is_refused or node["downloadable"] is False or not node["aiTrainingOptIn"]
        if node["isNsfw"]:
            assert node["id"] not in rows
        else:
            assert (rows[node["id"]]["image_url"] is None) == bool(is_refused or node["urls"] is None)
            refused += bool(is_refused)
    assert refused > 20
    for word in ("ai_generated=", "no_ai_training=", "login_needed=", "not_safe=", "no_photo="):
        assert word in caplog.text


def test_a_walk_is_bounded(serve: Serve, many: Catalogue) -> None:
    """A limit of 60 costs two or three pages of 30, not fourteen; the row says that there was more."""
    serve(many, px500_habits=PLAIN)
    brought = found(Query(category="Travel", limit=60))
    assert len(brought.listings) == 60
    [window] = brought.windows
    assert (window["state"], window["total"], window["pages"]) == ("sampled", len(many.listed()), 3)
    assert window["calls"] == 3 + 2, "two guesses that the site turned down"


def test_a_second_walk_ends_among_what_is_known(serve: Serve, many: Catalogue) -> None:
    """Nothing new: two pages instead of fourteen. What is new comes first where the site can sort, and is found."""
    site = serve(many, px500_habits=Px500Habits(is_mixed=False, sorts=("RELEVANCE", "CREATED_AT_DESC")))
    query = Query(category="Travel", limit=5000)
    everything = [row["photo_id"] for row in found(query).listings]
    newest = max((photo for photo in many.listed() if not is_nsfw(photo)), key=lambda photo: photo.uploaded_at)
    site.px500.calls.clear()
    again = found(query, frozenset(everything) - {base62(newest.id)})
    assert site.px500.calls["searchResource"] <= 3
    assert again.listings[0]["photo_id"] == base62(newest.id)
    assert again.windows[0]["state"] == "sampled"


def test_what_is_new_behind_known_photos_is_found(serve: Serve, many: Catalogue) -> None:
    """A site that cannot sort by time lists the newest anywhere: what is known does not end the walk."""
    serve(many, px500_habits=PLAIN)
    query = Query(category="Travel", limit=5000)
    everything = [row["photo_id"] for row in found(query).listings]
    again = found(query, frozenset(everything[:-60]))
    assert [row["photo_id"] for row in again.listings] == everything
    assert again.windows[0]["state"] == "listed"


def test_guesses_that_fail_are_not_made_again(serve: Serve, many: Catalogue) -> None:
    """An order and a field that the site does not know cost one call each, in this process and with this site."""
    site = serve(many, px500_habits=PLAIN)
    assert len(found(Query(category="Travel", limit=30)).listings) == 30
    before = site.px500.calls["searchResource"]
    found(Query(category="Travel", limit=30))
    assert site.px500.calls["searchResource"] - before <= 2


def test_an_address_that_ended_is_asked_for_anew(serve: Serve, few: Catalogue) -> None:
    """403 once its hour is over; the photo's id leads to one that is good, for the same file."""
    site = serve(few)
    source, (photo, row) = named("500px"), usable(few)
    ask = source.ask(settings())
    first = ask(row["image_url"])
    assert (first.outcome, first.body) == ("ok", ask(row["fallbacks"][0]["url"]).body)
    site.px500_images.clock = lambda: time.time() + 7200
    assert (ask(row["image_url"]).outcome, ask(row["image_url"]).status) == ("denied", 403)
    fresh = source.renew(row["photo_id"], settings())
    assert [rung["label"] for rung in fresh] == ["X-Large 4K", "Large 2048", "Large", "Medium 600"]
    assert ask(fresh[0]["url"]).body == first.body
    few.delete(photo.id)
    assert source.renew(row["photo_id"], settings()) == []
    site = serve(few, px500_habits=Px500Habits(gone_as="flags"))
    assert source.renew(row["photo_id"], settings()) == [], "it says that it was deleted"


def test_fresh_signatures_are_no_news(root: Layout, serve: Serve, few: Catalogue) -> None:
    """What is published of a photo is the same after another search, though its addresses are signed anew."""
    site = serve(few)
    query, tables = Query(category=category_of(few.listed()[0])), []
    for hours in (0, 1):
        site.px500_images.clock = lambda hours=hours: time.time() + 3600 * hours
        outcome = search.fn("500px", query, None)
        ledger.adopt(root, "signed", outcome.listings)
        tables.append(catalog.facts(root, "signed"))
    urls = [url for url in tables[0]["image_url"].to_pylist() if url]
    assert urls
    assert not any("sig=" in url for url in urls)
    assert tables[0].equals(tables[1])
    wanted = catalog.wanted(root, "signed", datetime.now(UTC)).to_pylist()
    assert any("sig=" in rung["url"] for row in wanted for rung in row["renditions"]), "as the download needs them"


def test_a_download_renews_what_has_ended(root: Layout, serve: Serve, few: Catalogue) -> None:
    """Two hours after the search every address is refused; each photo is had all the same, for one call of the API."""
    site = serve(few)
    query = Query(category=category_of(few.listed()[0]))
    ledger.adopt(root, "ended", search.fn("500px", query, None).listings)
    wanted = catalog.wanted(root, "ended", datetime.now(UTC))
    site.px500_images.clock = lambda: time.time() + 7200
    attempts = download.fn("500px", "ended", manifest.write(root, "wanted", wanted))
    rows = manifest.read(root, attempts).to_pylist()
    offered = {row["photo_id"] for row in wanted.to_pylist() if row["renditions"]}
    fetched = {row["photo_id"] for row in rows if row["sha256"]}
    assert fetched
    assert fetched <= offered
    assert "denied" not in {row["download_reason"] for row in rows}
    assert {row["download_reason"] for row in rows if row["photo_id"] not in offered} <= {"no_image_url"}
    assert site.px500.calls["getPhotoById"] == len(offered)
    assert not any("sig=" in (row["fetched_url"] or "") for row in rows)


def test_images_come_from_declared_hosts_only(serve: Serve, few: Catalogue) -> None:
    """The stand-in's own, because it is what is asked; any other is refused before a request."""
    site = serve(few)
    ask = named("500px").ask(settings())
    _, row = usable(few)
    assert ask(row["image_url"]).outcome == "ok"
    port = urlsplit(site.url).port
    for url in (
        f"http://localhost:{port}/p/1/size_4k.jpg",
        "http://169.254.169.254/",
        "https://drscdn.500px.org/a.jpg",
    ):
        assert ask(url).outcome == "forbidden_host"
    apply_environment(DARKROOM_PX500_URL="https://api-neo.500px.com/graphql")
    assert named("500px").ask(settings())(row["image_url"]).outcome == "forbidden_host"


@pytest.mark.parametrize("gone_as", ["null", "error", "flags"])
def test_a_photo_is_gone_when_the_site_says_so(serve: Serve, few: Catalogue, gone_as: str) -> None:
    """Deleted or private, in each way in which the site may say it; the proof says which."""
    serve(few, px500_habits=Px500Habits(gone_as=gone_as))
    source, (photo, row) = named("500px"), usable(few)
    seen = source.inspect(row["photo_id"], settings())
    assert (seen.state, seen.licence, seen.is_download_allowed) == ("present", row["licence"], True)
    for change in (few.make_private, few.delete):
        change(photo.id)
        seen = source.inspect(row["photo_id"], settings())
        assert (seen.state, seen.is_download_allowed) == ("gone", False)
        assert "getPhotoById" in seen.proof
    assert source.inspect("neverwas", settings()).state == ("gone")


@pytest.mark.parametrize(
    ("fault", "state"),
    [("code_1503", "unknown"), ("http_404", "unknown"), ("http_403", "unknown"), ("code_500", None), ("html", None)],
)
def test_a_site_out_of_order_proves_nothing(serve: Serve, few: Catalogue, fault: str, state: str | None) -> None:
    """Retired, moved, or closed to us: unknown. Whatever may pass is raised. No photo is gone by it."""
    site = serve(few)
    site.faults.add([{"where": "api", "kind": fault, "match": "getPhotoById"}])
    if state is None:
        with pytest.raises(SourceUnavailable):
            named("500px").inspect("d4hHJN8xaUd", settings())
    else:
        assert named("500px").inspect("d4hHJN8xaUd", settings()).state == state


def test_a_retired_api_is_asked_once(serve: Serve, few: Catalogue) -> None:
    """Error 1503 within HTTP 200, here or at the older address: one sentence, no retry."""
    site = serve(few, px500_habits=Px500Habits(in_maintenance=True))
    for path in ("/graphql", "/legacy/graphql"):
        apply_environment(DARKROOM_PX500_URL=f"{site.url}{path}")
        site.px500.calls.clear()
        with pytest.raises(SourceChanged, match=r"retired or in maintenance \(1503"):
            found()
        assert site.px500.calls["retired"] == 1


def test_a_session_that_is_refused_is_replaced_once(serve: Serve, few: Catalogue) -> None:
    """CSRF invalid: with a fresh session the walk goes on; if that is refused too, it ends in one sentence."""
    site = serve(few, px500_habits=Px500Habits(gives_cookie=False))
    old = session(site.px500_url)
    site.faults.add([{"where": "api", "kind": "http_422", "times": 1}])
    assert found().windows[0]["state"] == "listed"
    assert session(site.px500_url).csrf_token != old.csrf_token
    before = site.px500.calls["searchResource"]
    site.faults.add([{"where": "api", "kind": "http_422"}])
    with pytest.raises(SourceChanged, match="no session of ours is accepted"):
        found()
    assert site.px500.calls["searchResource"] - before == 2


@pytest.mark.parametrize("kind", ["half_body", "html", "trailing_comma", "code_500", "http_500", "reset"])
def test_passing_faults_cost_a_retry_and_no_photo(serve: Serve, few: Catalogue, kind: str) -> None:
    """One broken answer of a call, then a good one: the same rows as without."""
    site = serve(few, px500_habits=PLAIN)
    sound = {row["photo_id"] for row in found().listings}
    site.faults.add([{"where": "api", "kind": kind, "times": 1}])
    assert {row["photo_id"] for row in found().listings} == sound
    site.faults.add([{"where": "api", "kind": kind}])
    before = site.px500.calls["searchResource"]
    with pytest.raises(SourceUnavailable):
        found()
    assert site.px500.calls["searchResource"] - before <= TRIES


@pytest.mark.parametrize(("kind", "error"), [("http_403", PermanentSourceError), ("http_429", RateLimited)])
def test_a_site_that_wants_no_more_is_left_alone(
    serve: Serve, few: Catalogue, kind: str, error: type[Exception]
) -> None:
    """403 ends the walk at once; 429 after the client's pauses."""
    site = serve(few)
    site.faults.add([{"where": "api", "kind": kind}])
    with pytest.raises(error):
        found()
    assert site.px500.calls["searchResource"] <= 1 + SHORT.pauses


def test_the_token_is_that_of_the_site_where_it_gives_one(serve: Serve, few: Catalogue) -> None:
    """Its first page sets a cookie; a site without gets one of ours, the same for as long as the process lives."""
    assert session(serve(few).px500_url).csrf_token == base62("csrf")
    site = serve(few, px500_habits=Px500Habits(gives_cookie=False))
    ours = session(site.px500_url)
    assert (len(ours.csrf_token), session(site.px500_url)) == (43, ours)


def test_an_answer_about_another_photo_is_none(serve: Serve, few: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of the photo that was asked for, and no address of the other is taken."""
    site = serve(few)
    monkeypatch.setattr(site.px500, "visible", lambda photo: site.px500.node(few.photos()[1]))
    assert named("500px").inspect(base62(few.photos()[0].id), settings()).state == "unknown"
    with pytest.raises(SourceChanged):
        named("500px").renew(base62(few.photos()[0].id), settings())


def test_a_forecast_costs_one_call_and_says_what_a_walk_will(serve: Serve, many: Catalogue) -> None:
    """Photos up to the limit, pages of 30, bytes by the size that is asked for."""
    site = serve(many, px500_habits=Px500Habits(is_mixed=False, sorts=("CREATED_AT_DESC",), has_ai_opt_in=True))
    cost = named("500px").forecast(Query(category="Travel", limit=100), None, settings())
    assert site.px500.calls["searchResource"] == 1
    assert (cost.photos, cost.windows, cost.calls) == (100, 1, 4)
    assert cost.bytes > 0
    assert named("500px").forecast(Query(category="Travel"), None, settings()).photos == len(many.listed())


def test_no_token_is_told(serve: Serve, many: Catalogue, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log at its most talkative nor in what is found or raised."""
    site = serve(many)
    with caplog.at_level(logging.DEBUG):
        rows = found().listings
        site.faults.add([{"where": "api", "kind": "http_422"}])
        with pytest.raises(SourceChanged) as error:
            found()
    now = session(settings().px500_url)
    for secret in (now.csrf_token, now.device_id, base62("csrf")):
        assert secret not in caplog.text
        assert secret not in str(rows)
        assert secret not in str(error.value)


def test_the_host_of_the_images_may_have_had_enough(serve: Serve, few: Catalogue) -> None:
    """Its 429 is the host's own; an owner's opt-out is heeded here too."""
    site = serve(few, host_habits=HostHabits(limit=(3, 60.0)))
    _, row = usable(few)
    ask = named("500px").ask(settings())
    assert [ask(row["image_url"]).outcome for _ in range(4)] == ["ok", "ok", "ok", "rate_limited"]
    site = serve(few)
    session.cache_clear()
    _, row = usable(few)
    site.faults.add([{"where": "image", "kind": "noimageai"}])
    assert named("500px").ask(settings())(row["image_url"]).outcome == "opted_out"
