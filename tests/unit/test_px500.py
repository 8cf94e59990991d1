"""What is read from 500px's replies, and what is made of them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.settings import Settings
from tasks import web
from tasks.errors import ConfigError, PermanentSourceError, RateLimited, SourceChanged, SourceUnavailable
from tasks.sources.base import Query
from tasks.sources.px500 import DETOUR, FAMILIAR, PAGE, Px500, Walk, arguments
from tasks.sources.px500_api import (
    AI_OPT_IN,
    CSRF,
    DEVICE,
    GUESSES,
    NEWEST,
    QUERIES,
    CsrfRefused,
    PhotoGone,
    Session,
    Unknown,
    Unreadable,
    parse_reply,
)
from tasks.sources.px500_rows import forbidden, licence, listing, moment, pages_of, renditions

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HARBOUR = Query(text="harbour", category="Travel")
PHOTO: dict[str, Any] = {
    "__typename": "Photo", "id": "d4hHJN8xaUd", "title": "Harbour", "uploadedAt": "2026-10-02T08:15:00.250Z",
    "takenAt": None, "width": 6000, "height": 4000, "category": "Travel", "isNsfw": False, "downloadable": True,
    "licensing": {"status": "NONE"}, "uploader": {"id": "u7Qx", "username": "annex", "displayName": "Ann Example"},
    "urls": {f"size_{size}": f"https://img/p/1/{size}.jpg?sig=ab&expiry=9" for size in ("600", "1024", "2048", "4k")},
}  # fmt: skip
FACTS = [name for name in PHOTO if name not in ("__typename", "id")]
SEARCH = "searchResource"
HEADERS = ("x-500px-device-id", "x-500px-device-id-prod", "x-500px-csrf-token-prod")


def answered(reply: Any, status: int = 200, outcome: web.Outcome = "ok") -> web.Answer:
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return web.Answer("https://api-neo.500px.com/graphql", outcome, status, body=body, detail=f"HTTP {status}")


def refused(message: str, status: int = 400, **extensions: str) -> web.Answer:
    reply = {"data": None, "errors": [{"message": message, "extensions": extensions}]}
    return answered(reply, status, "ok" if status == 200 else "denied")


def page(*nodes: Any, cursor: str | None = "cG9zLTI5", more: bool = True, total: Any = 90) -> dict[str, Any]:
    info = {"hasNextPage": more, "endCursor": cursor}
    return {SEARCH: {"totalCount": total, "edges": [{"node": node} for node in nodes], "pageInfo": info}}


def photos(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [PHOTO | {"id": f"photo{number}"} for number in range(first, first + count)]


def walked(query: Query, known: frozenset[str], *pages: dict[str, Any]) -> Walk:
    """A walk over ``pages`` for as long as it goes on."""
    walk = Walk(query, known)
    for each in pages:
        if walk.goes_on:
            for photo in walk.read(each):
                walk.take(listing(photo, query, NOW), forbidden(photo))
    return walk


def test_a_row_holds_what_the_site_says() -> None:
    """Identity is the base62 id; the addresses are taken as they are, with their signatures; times are UTC."""
    row = listing(PHOTO, HARBOUR, NOW)
    assert (row["source"], row["photo_id"], row["query_id"]) == ("500px", "d4hHJN8xaUd", HARBOUR.query_id)
    assert (row["owner_id"], row["owner_name"], row["title"]) == ("u7Qx", "Ann Example", "Harbour")
    assert row["page_url"] == "https://500px.com/photo/d4hHJN8xaUd"
    assert row["image_url"] == PHOTO["urls"]["size_4k"]
    assert (row["size_label"], row["listed_width"], row["listed_height"]) == ("X-Large 4K", 4096, 2731)
    assert [rung["url"] for rung in row["fallbacks"]] == [PHOTO["urls"][f"size_{n}"] for n in (2048, 1024, 600)]
    assert (row["uploaded_at"], row["taken_at"]) == (datetime(2026, 10, 2, 8, 15, 0, 250_000, UTC), None)
    assert (row["licence"], row["licence_url"]) == ("500px: NONE", "https://500px.com/terms")
    assert (row["label"], row["tags"]) == ("Travel", ["Travel"])
    assert listing(PHOTO, Query(category="Travel", label="trips"), NOW)["label"] == "trips"


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("value", [None, [], "?", -1, {}, 10**12])
def test_any_field_but_the_id_may_be_null_or_nonsense(name: str, value: Any) -> None:
    """The photo still has a row, and nothing of the nonsense becomes a size, a time or an address."""
    row = listing(PHOTO | {name: value}, HARBOUR, NOW)
    assert row["photo_id"] == "d4hHJN8xaUd"
    assert row["uploaded_at"] is None or row["uploaded_at"].tzinfo is UTC
    assert all(row[side] is None or 0 < row[side] <= 4096 for side in ("listed_width", "listed_height"))
    assert row["image_url"] is None or row["image_url"].startswith("https://")
    assert row["owner_id"] is None or row["owner_id"]


def test_a_bare_id_is_a_row() -> None:
    """Everything else missing: no picture, no owner, licence unstated."""
    row = listing({"id": "d4hHJN8xaUd"}, Query(text="a"), NOW)
    assert (row["image_url"], row["owner_id"], row["licence"], row["label"]) == (None, None, "unstated", None)
    assert licence({"licensing": None})["licence"] == "unstated"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"isDeleted": True}, "deleted"),
        ({"isPrivate": True}, "private"),
        ({"isInReview": True}, "in_review"),
        ({"needLoginToView": True}, "login_needed"),
        ({"aiTrainingOptIn": False}, "no_ai_training"),
        ({"downloadable": False}, "not_downloadable"),
        ({"taggedAigc": True}, "ai_generated"),
        ({"userDeclaredAigc": True}, "ai_generated"),
    ],
)
def test_what_may_not_be_taken_has_a_row_without_a_picture(facts: dict[str, bool], reason: str) -> None:
    """The reason is told in the log; the row has neither an address nor a smaller size to fall back to."""
    row = listing(PHOTO | facts, HARBOUR, NOW)
    assert forbidden(PHOTO | facts) == reason
    assert (row["image_url"], row["fallbacks"]) == (None, [])
    assert row["photo_id"] == "d4hHJN8xaUd"


def test_what_is_not_said_forbids_nothing() -> None:
    """Nulls and an explicit consent leave the picture."""
    said = dict.fromkeys(("isDeleted", "isPrivate", "needLoginToView", "taggedAigc", "downloadable", AI_OPT_IN))
    assert forbidden(PHOTO | said) is None
    assert forbidden(PHOTO | {AI_OPT_IN: True}) is None


def test_renditions_are_no_larger_than_asked_for_and_than_the_photo() -> None:
    """Large is 1024 px at most; a photo of 1500 px is listed as 1500 px in 2048."""
    assert [rung["label"] for rung in renditions(PHOTO, "Large")] == ["Large", "Medium 600"]
    assert [rung["width"] for rung in renditions(PHOTO | {"width": 1500, "height": 1000})] == [1500, 1500, 1024, 600]
    assert [rung["label"] for rung in renditions(PHOTO | {"urls": {"size_600": "u", "size_4k": ""}})] == ["Medium 600"]


def test_times_without_a_zone_are_utc() -> None:
    """An offset is taken into account; nonsense is None."""
    assert (
        moment("2026-10-02T10:15:00+02:00") == moment("2026-10-02T08:15:00") == datetime(2026, 10, 2, 8, 15, tzinfo=UTC)
    )
    assert [moment(value) for value in ("yesterday", None, 5, "0001-01-01T00:00:00+14:00")] == [None] * 4


def test_pages_of_a_stand_in_are_its_own() -> None:
    """Only an endpoint of 500px's has pages there."""
    assert pages_of("https://api-neo.500px.com/graphql") == "https://500px.com"
    assert pages_of("http://127.0.0.1:4270/graphql") == "http://127.0.0.1:4270"
    assert pages_of("https://500px.com.example/graphql") == "https://500px.com.example"


def test_all_headers_are_sent() -> None:
    """Both spellings of the device id, the token as header and cookie alike, platform, Origin, Referer and Accept."""
    headers = Session("device", "token").headers("https://500px.com")
    assert [headers[name] for name in HEADERS] == ["device", "device", "token"]
    assert headers["Cookie"] == f"{DEVICE}=device; {CSRF}=token"
    assert (headers["x-500px-platform"], headers["Origin"], headers["Referer"]) == (
        "Web", "https://500px.com", "https://500px.com/",
    )  # fmt: skip
    assert headers["Content-Type"] == "application/json"
    assert "application/graphql-response+json" in headers["Accept"]
    assert "User-Agent" not in headers, "who we are, the client says"


def test_queries_ask_for_what_rows_are_made_of() -> None:
    """The photo's facts are in both texts, and no guess unless it is put in."""
    for text in QUERIES.values():
        whole = text % {"facts": "FACTS"}
        assert "FACTS" in whole
        assert not any(guess in whole for guess in GUESSES)
        assert whole.count("{") == whole.count("}")


def test_a_search_has_a_keyword_in_any_case() -> None:
    """The endpoint wants one where a category says it all."""
    assert arguments(Query(category="Still Life"))["keyword"] == "Still Life"
    assert (arguments(HARBOUR)["keyword"], arguments(HARBOUR)["categories"]) == ("harbour", ["Travel"])
    assert "categories" not in arguments(Query(text="harbour"))


def test_a_retired_api_says_so_in_one_sentence() -> None:
    """Error 1503 within HTTP 200, and a reply without data: no retry will help, and the sentence names why."""
    for answer in (refused("A fresh version is rolling out", 200, code="1503"), answered({"data": None})):
        with pytest.raises(SourceChanged, match="retired or in maintenance") as error:
            parse_reply(answer, SEARCH)
        assert "\n" not in str(error.value)
        assert error.value.field == "data"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused("CSRF invalid", 422), CsrfRefused),
        (answered(b"", 422, "denied"), CsrfRefused),
        (refused("`variables` in a POST body should be provided as an object"), SourceChanged),
        (answered(b"Forbidden", 403, "denied"), PermanentSourceError),
        (answered(b"", 404, "gone"), PermanentSourceError),
        (answered(b"", 429, "rate_limited"), RateLimited),
        (answered(b"", 502, "unavailable"), SourceUnavailable),
        (answered(b"<html>", 200), Unreadable),
        (answered(b'{"data": {"searchRes', 200), Unreadable),
        (answered([1]), Unreadable),
        (refused("Internal server error", 200, code="INTERNAL"), Unreadable),
        (answered({"data": {SEARCH: None}, "errors": [{"message": "timed out"}]}), Unreadable),
    ],
)
def test_what_a_refusal_means(answer: web.Answer, error: type[Exception]) -> None:
    """Stop, wait, ask again, or get another session: the class says it."""
    with pytest.raises(error) as caught:
        parse_reply(answer, SEARCH)
    assert type(caught.value) is error


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("guess", sorted(GUESSES))
def test_a_guess_that_is_turned_down_is_named(guess: str, status: int) -> None:
    """Whatever the status, and whatever else is said; a word that we did not guess is a change of the site."""
    with pytest.raises(Unknown) as refusal:
        parse_reply(refused(f'Cannot query field "{guess}" on type "Photo".', status), SEARCH, GUESSES)
    assert refusal.value.names == {guess}
    with pytest.raises((SourceChanged, Unreadable)):
        parse_reply(refused(f'Cannot query field "{guess}" on type "Photo".', status), SEARCH, GUESSES - {guess})


def test_only_a_photo_can_be_gone() -> None:
    """Null, alone or with an error that says why; an error that says nothing of the kind, and a 404 of the endpoint,
    prove nothing.
    """
    for errors in ([], [{"message": "Photo not found"}], [{"message": "This photo is private"}]):
        with pytest.raises(PhotoGone):
            parse_reply(answered({"data": {"getPhotoById": None}, "errors": errors}), "getPhotoById")
    with pytest.raises(Unreadable):
        parse_reply(answered({"data": {"getPhotoById": None}, "errors": [{"message": "timeout"}]}), "getPhotoById")
    with pytest.raises(PermanentSourceError) as refusal:
        parse_reply(answered(b'{"errors": [{"message": "not found"}]}', 404, "gone"), "getPhotoById")
    assert type(refusal.value) is PermanentSourceError


def test_a_walk_takes_each_photo_once_and_no_more_than_the_limit() -> None:
    """Pages that repeat what was before add nothing; the walk ends with the page that fills it."""
    query = Query(text="a", limit=40)
    walk = walked(query, frozenset(), page(*photos(30)), page(*photos(30, 20), cursor="b"), page(*photos(30, 50)))
    assert list(walk.rows) == [f"photo{number}" for number in range(50)]
    assert (walk.pages, walk.total, walk.is_at_end) == (2, 90, False)
    hidden = [photo | {"isPrivate": True} for photo in photos(30)]
    assert walked(Query(text="a"), frozenset(), page(*hidden), page(*hidden, cursor="b")).left_out == {"private": 30}


def test_a_walk_ends_among_known_photos() -> None:
    """50 in a row, counted over pages; one that is new begins the count anew."""
    known = frozenset(f"photo{number}" for number in range(200))
    pages = [page(*photos(30, start), cursor=str(start)) for start in range(0, 180, 30)]
    assert walked(Query(text="a"), known, *pages).pages == 2
    assert walked(Query(text="a"), known - {"photo25"}, *pages).pages == 3
    assert walked(Query(text="a"), frozenset(), *pages).pages == 6
    assert FAMILIAR == 50


def test_a_walk_in_any_other_order_goes_on_among_known_photos() -> None:
    """New ones may stand behind them."""
    known = frozenset(f"photo{number}" for number in range(60))
    walk = Walk(Query(text="a"), known, is_newest_first=False)
    for start in range(0, 120, 30):
        assert walk.goes_on
        for photo in walk.read(page(*photos(30, start), cursor=str(start), more=start < 90)):
            walk.take(listing(photo, walk.query, NOW), None)
    assert len(set(walk.rows) - known) == 60


@pytest.mark.parametrize(
    "last", [page(*photos(3), more=False), page(*photos(3), cursor=None), page(more=True), {SEARCH: {"edges": []}}]
)
def test_a_walk_ends_with_the_results(last: dict[str, Any]) -> None:
    """No next page, no cursor, nothing on the page: all of them are the end."""
    walk = walked(Query(text="a"), frozenset(), last, page(*photos(30)))
    assert (walk.pages, walk.is_at_end) == (1, True)


def test_a_cursor_that_stands_still_ends_the_walk() -> None:
    """A site that answers the same page for ever is asked for it twice."""
    walk = walked(Query(text="a"), frozenset(), *[page(*photos(30))] * 5)
    assert (walk.pages, len(walk.rows)) == (2, 30)


def test_a_walk_through_what_is_left_out_has_an_end() -> None:
    """Nothing but groups, videos and photos that are not safe: three nodes are read for each photo of the limit."""
    others = [{"__typename": "PhotoGroup", "id": "g"}, {"__typename": "Video"}, PHOTO | {"isNsfw": True}, None, 7]
    pages = [page(*others * 6, cursor=str(number)) for number in range(100)]
    walk = walked(Query(text="a", limit=60), frozenset(), *pages)
    assert walk.rows == {}
    assert walk.pages == DETOUR * 60 / PAGE
    assert walk.left_out == {"no_photo": 4 * 6 * 6, "not_safe": 6 * 6}


def test_photos_without_an_id_are_a_change_of_the_site() -> None:
    """So is a search that lists nothing that can be read."""
    for broken in (page(PHOTO | {"id": None}), page(PHOTO | {"id": 5}), {SEARCH: {"edges": None}}, {SEARCH: "?"}):
        with pytest.raises(SourceChanged):
            Walk(HARBOUR, frozenset()).read(broken)


def test_500px_is_off_until_somebody_says_that_it_may_be_asked() -> None:
    """The sentence has the terms and the switch; a stand-in on this machine may be asked, plain HTTP elsewhere not."""
    source = Px500()
    with pytest.raises(ConfigError, match=r"closed in 2018.*24 hours.*terms.*DARKROOM_PX500=on"):
        source.check(Settings(px500=False))
    source.check(Settings(px500=True))
    source.check(Settings(px500=False, px500_url="http://127.0.0.1:4270/graphql"))
    with pytest.raises(ConfigError, match="https://"):
        source.check(Settings(px500=True, px500_url="http://api-neo.500px.com/graphql"))
    assert NEWEST in GUESSES
