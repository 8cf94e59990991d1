"""The stand-in's 500px over real HTTP, asked by hand: every rule that a client can trip over."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import urllib3

from tasks.sources.standin import Catalogue, Photo, Px500Habits, StandIn
from tasks.sources.standin.px500_rows import CATEGORIES, base62, category_of

TOKEN = "t" * 43
BROWSER = {
    "content-type": "application/json", "x-500px-device-id": "d", "x-500px-csrf-token-prod": TOKEN,
    "cookie": f"x-500px-csrf-token-prod={TOKEN}",
}  # fmt: skip
SEARCH = "query searchResource($keyword: String!) { searchResource { edges { node { ... on Photo { id } } } } }"
PHOTO = "query getPhotoById($id: ID!) { getPhotoById(id: $id) { id urls { size_4k } } }"
LENIENT = Px500Habits(is_strict=False)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """150 small photos that no test changes."""
    return Catalogue.synthetic(150, seed=5, min_long_px=160, max_long_px=160)


@pytest.fixture(scope="module")
def site(catalogue: Catalogue) -> Iterator[StandIn]:
    """A strict site."""
    with StandIn(catalogue) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[urllib3.PoolManager]:
    """One client that keeps its connections open."""
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


def post(http: urllib3.PoolManager, url: str, payload: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON."""
    response = http.request("POST", url, body=json.dumps(payload), headers=BROWSER if headers is None else headers)
    return response.status, json.loads(response.data)


def asked(keyword: str = "Beach", query: str = SEARCH, **variables: Any) -> dict[str, Any]:
    """The payload of a search."""
    words = {"keyword": keyword, "first": 30} | variables
    return {"operationName": "searchResource", "variables": words, "query": query}


def named(photo_id: str) -> dict[str, Any]:
    """The payload of a question for one photo."""
    return {"operationName": "getPhotoById", "variables": {"id": photo_id}, "query": PHOTO}


def listed(http: urllib3.PoolManager, site: StandIn, **variables: Any) -> list[dict[str, Any]]:
    """All nodes of a search, page by page."""
    nodes, after = [], None
    while True:
        status, reply = post(http, site.px500_url, asked(**variables, **({"after": after} if after else {})))
        assert status == 200, reply
        found = reply["data"]["searchResource"]
        nodes += [edge["node"] for edge in found["edges"]]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            assert len(nodes) == found["totalCount"]
            return nodes


def test_a_search_lists_every_photo_of_a_category_once(http: urllib3.PoolManager, site: StandIn) -> None:
    """Pages of 2 together hold the photos of the category, whatever the order, and what is no photo between them."""
    for category in CATEGORIES[:4]:
        nodes = listed(http, site, keyword=category, categories=[category], first=2)
        truth = {base62(photo.id) for photo in site.catalogue.listed() if category_of(photo) == category}
        found = [node["id"] for node in nodes if node["__typename"] == "Photo"]
        assert sorted(found) == sorted(truth)
    assert {category_of(photo) for photo in site.catalogue.photos()} <= set(CATEGORIES)
    assert len(CATEGORIES) == 28


def test_lists_hold_groups_and_videos_and_nulls(http: urllib3.PoolManager, site: StandIn) -> None:
    """Whatever is asked for; every field but id and type is null somewhere, and photos that are not safe are listed."""
    nodes = [node for category in CATEGORIES for node in listed(http, site, keyword=category, categories=[category])]
    assert {"Photo", "PhotoGroup", "Video"} >= {node["__typename"] for node in nodes} > {"Photo"}
    photos = [node for node in nodes if node["__typename"] == "Photo"]
    for name in ("title", "urls", "uploader", "licensing", "width", "uploadedAt"):
        assert 0 < sum(photo[name] is None for photo in photos) < len(photos) / 4
    for name in ("isNsfw", "taggedAigc", "needLoginToView"):
        assert any(photo[name] for photo in photos)
    assert "aiTrainingOptIn" not in photos[0]


def test_cursors_are_positions(http: urllib3.PoolManager, site: StandIn) -> None:
    """base64 of pos-<index>; a first page has none; one that is none is refused."""
    page = post(http, site.px500_url, asked(first=2))[1]["data"]["searchResource"]
    assert base64.b64decode(page["pageInfo"]["endCursor"]) == b"pos-1"
    assert [base64.b64decode(edge["cursor"]) for edge in page["edges"]] == [b"pos-0", b"pos-1"]
    assert post(http, site.px500_url, asked(after="???"))[0] == 400


@pytest.mark.parametrize(
    ("missing", "status", "message"),
    [
        ("x-500px-device-id", 500, "Internal"),
        ("x-500px-csrf-token-prod", 422, "CSRF invalid"),
        ("cookie", 422, "CSRF invalid"),
        ("content-type", 415, "Content-Type"),
    ],
)
def test_strict_wants_every_header(
    http: urllib3.PoolManager, catalogue: Catalogue, site: StandIn, missing: str, status: int, message: str
) -> None:
    """And names what is missing as the site does; lenient wants none."""
    headers = {name: value for name, value in BROWSER.items() if name != missing} | (
        {"content-type": "text/plain"} if missing == "content-type" else {}
    )
    code, reply = post(http, site.px500_url, asked(), headers)
    assert (code, message in reply["errors"][0]["message"]) == (status, True)
    with StandIn(catalogue, px500_habits=LENIENT) as lenient:
        assert post(http, lenient.px500_url, asked(), {})[0] == 200


def test_either_spelling_of_the_device_will_do(http: urllib3.PoolManager, site: StandIn) -> None:
    """The other one is that of the cookie."""
    headers = {name: value for name, value in BROWSER.items() if name != "x-500px-device-id"}
    assert post(http, site.px500_url, asked(), headers | {"x-500px-device-id-prod": "d"})[0] == 200


def test_a_token_of_another_cookie_is_refused(http: urllib3.PoolManager, site: StandIn) -> None:
    """They must be equal."""
    assert post(http, site.px500_url, asked(), BROWSER | {"x-500px-csrf-token-prod": "other"})[0] == 422


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (asked() | {"variables": json.dumps({"keyword": "a"})}, "should be provided as an object"),
        (asked(query="{ searchResource __schema { types } }"), "introspection"),
        (asked(query=SEARCH.replace("{ id }", "{ id aiTrainingOptIn }")), 'field "aiTrainingOptIn" on type "Photo"'),
        (asked() | {"operationName": "dropTables"}, "Unknown operation"),
        (asked(sort="CREATED_AT_DESC"), "SearchSortOption"),
        (asked(keyword=None), "$keyword"),
        (asked(first=None), "$first"),
        (asked(first=101), "$first"),
        (["a"], "body"),
    ],
)
def test_a_request_that_is_wrong_is_refused(
    http: urllib3.PoolManager, site: StandIn, payload: Any, message: str
) -> None:
    """With 400 and the reason."""
    status, reply = post(http, site.px500_url, payload)
    assert (status, message in reply["errors"][0]["message"]) == (400, True), reply


def test_habits_change_what_is_known(http: urllib3.PoolManager, catalogue: Catalogue) -> None:
    """Newest first where it is known; the consent of an owner where photos have it; nothing unsafe where that works."""
    habits = Px500Habits(sorts=("RELEVANCE", "CREATED_AT_DESC"), has_ai_opt_in=True, heeds_exclude_nsfw=True)
    with StandIn(catalogue, px500_habits=replace(habits, is_mixed=False)) as site:
        nodes = [
            node
            for category in CATEGORIES
            for node in listed(http, site, keyword=category, categories=[category], excludeNsfw=True)
        ]
        assert not any(node["isNsfw"] for node in nodes)
        assert {node["aiTrainingOptIn"] for node in nodes} == {True, False}
        dated = [node["uploadedAt"] for node in listed(http, site, keyword="Beach", sort="CREATED_AT_DESC")]
        dates = [date for date in dated if date]
        assert dates == sorted(dates, reverse=True)


@pytest.mark.parametrize(
    ("gone_as", "seen"), [("null", (None, False)), ("error", (None, True)), ("flags", ({"isDeleted": True}, False))]
)
def test_a_deleted_photo_is_null_or_says_so(
    http: urllib3.PoolManager, gone_as: str, seen: tuple[dict[str, Any] | None, bool]
) -> None:
    """With or without errors; it is in no list any more."""
    catalogue = Catalogue.synthetic(4, min_long_px=160, max_long_px=160)
    photo = catalogue.photos()[0]
    with StandIn(catalogue, px500_habits=Px500Habits(gone_as=gone_as)) as site:
        assert post(http, site.px500_url, named(base62(photo.id)))[1]["data"]["getPhotoById"]["id"] == base62(photo.id)
        catalogue.delete(photo.id)
        status, reply = post(http, site.px500_url, named(base62(photo.id)))
        found = reply["data"]["getPhotoById"]
        assert (found and {"isDeleted": found["isDeleted"]}, "errors" in reply) == seen
        assert status == 200
        category = category_of(photo)
        nodes = listed(http, site, keyword=category, categories=[category])
        assert base62(photo.id) not in [node["id"] for node in nodes]


def one_photo(site: StandIn) -> Photo:
    return next(photo for photo in site.catalogue.photos() if photo.picture.defect is None)


def test_addresses_are_signed_and_end(http: urllib3.PoolManager, site: StandIn) -> None:
    """The file is there for whoever has the address as it is; changed, unsigned or too late it is 403."""
    address = site.px500_images.sign(one_photo(site), "size_600")
    good = http.request("GET", address)
    assert (good.status, good.data[:3]) == (200, b"\xff\xd8\xff")
    later = address.replace("expiry=1", "expiry=2")
    for wrong in (address.replace("sig=", "sig=0"), later, address.partition("?")[0], f"{address}é"):
        assert http.request("GET", wrong).status == 403
    site.px500_images.clock = lambda: time.time() + 3601
    assert http.request("GET", address).status == 403
    site.px500_images.clock = time.time


def test_the_first_page_sets_a_cookie(http: urllib3.PoolManager, site: StandIn) -> None:
    """As a browser gets it."""
    assert "x-500px-csrf-token-prod=" in http.request("GET", f"{site.url}/").headers["Set-Cookie"]


def test_the_older_api_is_retired(http: urllib3.PoolManager, catalogue: Catalogue, site: StandIn) -> None:
    """HTTP 200, no data, code 1503, whatever is asked; so says the newer one while it is in maintenance."""
    with StandIn(catalogue, px500_habits=Px500Habits(in_maintenance=True)) as closed:
        for url in (closed.px500_url, f"{site.url}/legacy/graphql"):
            status, reply = post(http, url, {"query": "?"}, {})
            assert (status, reply["data"], reply["errors"][0]["extensions"]["code"]) == (200, None, "1503")


def test_scripted_faults_strike_by_operation(http: urllib3.PoolManager, catalogue: Catalogue) -> None:
    """Statuses with Retry-After, codes of GraphQL, broken bodies; other operations go on."""
    with StandIn(catalogue) as site:
        site.faults.add(
            [{"where": "api", "kind": "http_429", "match": "searchResource", "times": 1, "retry_after_s": 7}]
        )
        response = http.request("POST", site.px500_url, body=json.dumps(asked()), headers=BROWSER)
        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        site.faults.add([{"where": "api", "kind": "code_1503", "match": "searchResource"}])
        assert post(http, site.px500_url, asked())[1]["errors"][0]["extensions"]["code"] == "1503"
        assert post(http, site.px500_url, named("nobody"))[1] == {"data": {"getPhotoById": None}}
        assert site.stats()["px500_calls"] == {"searchResource": 2, "getPhotoById": 1}


def test_an_uploader_is_found_by_name_and_page(http: urllib3.PoolManager, site: StandIn) -> None:
    """getUserProfile answers getUser; pageResources lists what that user has, newest first; old numbers lead on."""
    owner = site.catalogue.listed()[0].owner
    name = owner.path_alias or owner.username
    query = "query getUserProfile($username: String!) { getUser(username: $username) { id } }"
    payload = {"operationName": "getUserProfile", "variables": {"username": name}, "query": query}
    user = post(http, site.px500_url, payload)[1]["data"]["getUser"]
    query = "query pageResources($userId: ID!) { pageResources(userId: $userId) { totalCount } }"
    payload = {"operationName": "pageResources", "variables": {"userId": user["id"], "first": 100}, "query": query}
    found = post(http, site.px500_url, payload)[1]["data"]["pageResources"]
    photos = [edge["node"]["id"] for edge in found["edges"] if edge["node"]["__typename"] == "Photo"]
    assert len(photos) == user["publicResourceCount"] >= 1
    photo = site.catalogue.listed()[0]
    query = "query getPhotoByLegacyId($legacyId: String!) { getPhotoByLegacyId(legacyId: $legacyId) { id } }"
    payload = {"operationName": "getPhotoByLegacyId", "variables": {"legacyId": photo.id}, "query": query}
    assert post(http, site.px500_url, payload)[1]["data"]["getPhotoByLegacyId"]["id"] == base62(photo.id)
