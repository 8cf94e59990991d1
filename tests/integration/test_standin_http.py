"""The stand-in site over real HTTP: every rule of its API that a client can trip over."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tasks.sources.standin import Catalogue, Keys, Photo, SearchHabits, StandIn

KEY = "0123456789abcdef0123456789abcdef"
EXPIRED = "f" * 32
ALL_TIME = {"min_upload_date": "2000-01-01"}
EXTRAS = "license,date_upload,date_taken,owner_name,path_alias,original_format,o_dims,geo,tags,url_o,url_h,url_l,url_sq"


@pytest.fixture(scope="module")
def site() -> Iterator[StandIn]:
    """A site of 120 small photos that no test changes."""
    catalogue = Catalogue.synthetic(120, seed=4, min_long_px=360, max_long_px=360)
    with StandIn(catalogue, keys=Keys(expired=frozenset({EXPIRED}))) as running:
        yield running


@pytest.fixture
def own_site() -> Iterator[StandIn]:
    """A site for one test: 8 photos, 5 calls an hour."""
    with StandIn(Catalogue.synthetic(8, min_long_px=360, max_long_px=360), quota_per_hour=5) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    """One client that keeps its connections open."""
    with requests.Session() as session:
        yield session


def _ask(http: requests.Session, site: StandIn, method: str = "flickr.photos.search", **args: Any) -> Any:
    """The JSON answer to one call."""
    fixed = {"method": method, "api_key": KEY, "format": "json", "nojsoncallback": "1"}
    return http.get(site.api_url, params=fixed | args, timeout=10).json()


def _ids(reply: Any) -> list[str]:
    return [row["id"] for row in reply["photos"]["photo"]]


def _one(site: StandIn, **facts: object) -> Photo:
    """The first photo with these facts."""
    return next(p for p in site.catalogue.photos() if all(getattr(p, name) == value for name, value in facts.items()))


def _row(http: requests.Session, site: StandIn, photo: Photo) -> dict[str, Any]:
    """The listing row of one photo, with its addresses."""
    stamp = str(int(photo.uploaded_at.timestamp()))
    reply = _ask(http, site, min_upload_date=stamp, max_upload_date=stamp, extras=EXTRAS)
    return next(row for row in reply["photos"]["photo"] if row["id"] == photo.id)


def _bulk(count: int) -> list[Photo]:
    """``count`` photos, one a minute, none of which is looked at."""
    first = Catalogue.synthetic(1).photos()[0]
    start = datetime(2024, 6, 1, tzinfo=UTC)
    return [
        replace(first, id=str(10_000_000 + k), uploaded_at=start + timedelta(minutes=k), title="bulk")
        for k in range(count)
    ]


def test_search_returns_the_truth(site: StandIn, http: requests.Session) -> None:
    """All listed photos, newest first, with owner, title, tags and licence as they are."""
    reply = _ask(http, site, **ALL_TIME, per_page="500", extras=EXTRAS)
    truth = sorted(site.catalogue.listed(), key=lambda p: (p.uploaded_at, p.id), reverse=True)
    rows = reply["photos"]["photo"]
    assert [row["id"] for row in rows] == [p.id for p in truth]
    facts = [(r["owner"], r["title"], r["tags"], int(r["license"]), int(r["dateupload"])) for r in rows]
    assert facts == [
        (p.owner.nsid, p.title, " ".join(p.tags), p.licence, int(p.uploaded_at.timestamp())) for p in truth
    ]


def test_types_are_uneven(site: StandIn, http: requests.Session) -> None:
    """The same field is a number in some rows and text in others."""
    rows = _ask(http, site, **ALL_TIME, per_page="500", extras=EXTRAS)["photos"]["photo"]
    for name in ("license", "o_width", "height_sq"):
        assert {type(row[name]) for row in rows if name in row} == {int, str}


def test_only_asked_extras_are_there(site: StandIn, http: requests.Session) -> None:
    """Without extras a row holds identity and title; a photo whose original is hidden has no url_o and no o_width."""
    assert set(_ask(http, site, **ALL_TIME)["photos"]["photo"][0]) == {
        "id", "owner", "secret", "server", "farm", "title", "ispublic", "isfriend", "isfamily",
    }  # fmt: skip
    hidden = _row(http, site, _one(site, is_original_public=False))
    assert not {"url_o", "o_width", "originalsecret"} & set(hidden)
    assert "url_sq" in hidden


@pytest.mark.parametrize(
    ("args", "per_page"),
    [
        ({}, 100),
        ({"per_page": "700"}, 500),
        ({"per_page": "300", "bbox": "-180,-90,180,90"}, 250),
        ({"per_page": "7"}, 7),
    ],
)
def test_per_page_has_its_limits(site: StandIn, http: requests.Session, args: dict[str, str], per_page: int) -> None:
    """100 unless asked, 500 at most, 250 at most with a place; the answer says which was used."""
    assert _ask(http, site, **ALL_TIME, **args)["photos"]["perpage"] == per_page


def test_page_zero_is_page_one(site: StandIn, http: requests.Session) -> None:
    """Pages 0 and -1 are the first; pages together hold every photo once."""
    first = _ids(_ask(http, site, **ALL_TIME, per_page="50"))
    assert _ids(_ask(http, site, **ALL_TIME, per_page="50", page="0")) == first
    assert _ids(_ask(http, site, **ALL_TIME, per_page="50", page="-1")) == first
    rest = [_ids(_ask(http, site, **ALL_TIME, per_page="50", page=page)) for page in ("2", "3")]
    assert sorted(first + rest[0] + rest[1]) == sorted(p.id for p in site.catalogue.listed())


def test_rows_past_4000_repeat(http: requests.Session) -> None:
    """Paging through 6,000 rows yields 6,000 rows of which 4,000 are unique; in error mode, code 20."""
    catalogue = Catalogue()
    catalogue.put(_bulk(6000))
    with StandIn(catalogue) as site:
        pages = [_ask(http, site, **ALL_TIME, per_page="500", page=str(p)) for p in range(1, 13)]
        ids = [photo_id for page in pages for photo_id in _ids(page)]
        assert (len(ids), len(set(ids))) == (6000, 4000)
        assert {int(page["photos"]["total"]) for page in pages} == {6000}
        site.api.habits = SearchHabits(offset_mode="error")
        assert _ask(http, site, **ALL_TIME, per_page="500", page="9")["code"] == 20
        site.api.habits = SearchHabits(has_drift=True)
        totals = {int(_ask(http, site, **ALL_TIME, page=str(p))["photos"]["total"]) for p in range(1, 6)}
        assert len(totals) > 1
        assert all(5880 <= total <= 6120 for total in totals)


def test_narrow_windows_return_neighbours_in_fuzz_mode(http: requests.Session) -> None:
    """A window of 4 minutes returns rows from outside it; one of 5 minutes does not."""
    catalogue = Catalogue()
    catalogue.put(_bulk(200))
    start = datetime(2024, 6, 1, 1, tzinfo=UTC)
    with StandIn(catalogue, search_habits=SearchHabits(fuzz=0.3)) as site:
        for minutes, more in ((4, True), (5, False)):
            window = {
                "min_upload_date": str(int(start.timestamp())),
                "max_upload_date": str(int(start.timestamp()) + 60 * minutes),
            }
            assert (len(_ids(_ask(http, site, **window))) > minutes + 1) == more


def test_dates_are_inclusive_and_come_in_two_forms(site: StandIn, http: requests.Session) -> None:
    """Unix and mysql dates mean the same; both ends belong to the window; an inverted window is empty."""
    photo = site.catalogue.listed()[0]
    moment = photo.uploaded_at
    for text in (str(int(moment.timestamp())), f"{moment:%Y-%m-%d %H:%M:%S}"):
        assert photo.id in _ids(_ask(http, site, min_upload_date=text, max_upload_date=text))
    assert _ids(_ask(http, site, min_upload_date="2025-12-31", max_upload_date="2024-01-01")) == []


def test_text_and_tags(site: StandIn, http: requests.Session) -> None:
    """text looks in title, description and tags; a minus excludes; tag_mode all wants all, and at most 20."""
    photos = site.catalogue.listed()
    travel = {p.id for p in photos if "travel" in p.tags}
    found = set(_ids(_ask(http, site, text="Travel", per_page="500")))
    assert travel <= found < {p.id for p in photos}
    sample = next(p for p in photos if p.id in travel)
    other = next(tag for tag in sample.tags if tag != "travel")
    assert sample.id not in _ids(_ask(http, site, text=f"travel -{other}"))
    both = {p.id for p in photos if {"travel", other} <= set(p.tags)}
    assert set(_ids(_ask(http, site, tags=f"Travel,{other}", tag_mode="all"))) == both
    assert set(_ids(_ask(http, site, tags=f"travel,-{other}"))) == travel - both
    assert _ask(http, site, tags=",".join(f"t{k}" for k in range(21)), tag_mode="all")["code"] == 1


def test_a_search_for_nothing_is_refused(site: StandIn, http: requests.Session) -> None:
    """Code 3 without a search argument, code 2 for an unknown owner."""
    assert _ask(http, site, extras=EXTRAS)["code"] == 3
    assert _ask(http, site, user_id="1@N00")["code"] == 2


def test_places_alone_show_twelve_hours(http: requests.Session) -> None:
    """A bbox without text, tags or dates sees only the last 12 hours; with a date it sees all places within it."""
    catalogue = Catalogue.synthetic(50)
    fresh = catalogue.add(uploaded_at=datetime.now(UTC) - timedelta(hours=1), location=(51.2, 4.4))[0]
    with StandIn(catalogue) as site:
        everywhere = {"bbox": "-180,-90,180,90"}
        assert _ids(_ask(http, site, **everywhere)) == [fresh.id]
        placed = {p.id for p in catalogue.listed() if p.location}
        assert set(_ids(_ask(http, site, **everywhere, **ALL_TIME))) == placed
        assert fresh.id in _ids(_ask(http, site, lat="51.21", lon="4.41", radius="5", **ALL_TIME))
        assert fresh.id not in _ids(_ask(http, site, lat="52.21", lon="4.41", radius="5", **ALL_TIME))


def test_licences_filter_and_unknown_ids_are_ignored(site: StandIn, http: requests.Session) -> None:
    """Only the asked licences; words and unknown numbers among them change nothing."""
    wanted = {p.id for p in site.catalogue.listed() if p.licence in (4, 11)}
    assert set(_ids(_ask(http, site, **ALL_TIME, license="4,11,99,x", per_page="500"))) == wanted


def test_what_is_hidden_is_not_listed(http: requests.Session) -> None:
    """Private, deleted, unsafe and not yet indexed photos are not found, whatever safe_search asks for."""
    catalogue = Catalogue.synthetic(5)
    private, deleted, unsafe, shown, _ = (p.id for p in catalogue.photos())
    catalogue.make_private(private)
    catalogue.delete(deleted)
    catalogue.change(unsafe, safety_level=2)
    late = catalogue.add(uploaded_at=datetime.now(UTC) - timedelta(minutes=5))[0].id
    with StandIn(catalogue, search_habits=SearchHabits(index_delay_s=600)) as site:
        found = _ids(_ask(http, site, **ALL_TIME, safe_search="3"))
        assert shown in found
        assert not {private, deleted, unsafe, late} & set(found)
        site.api.habits = SearchHabits(index_delay_s=60)
        assert late in _ids(_ask(http, site, **ALL_TIME))
        assert _ask(http, site, "flickr.photos.getInfo", photo_id=private)["code"] == 1
        assert _ask(http, site, "flickr.photos.getSizes", photo_id=deleted)["message"] == "Photo not found"


@pytest.mark.parametrize("order", ["date-posted", "date-taken", "interestingness"])
def test_every_order_has_two_directions(site: StandIn, http: requests.Session, order: str) -> None:
    """asc is the reverse of desc, ties included."""
    up, down = (_ids(_ask(http, site, **ALL_TIME, sort=f"{order}-{d}", per_page="500")) for d in ("asc", "desc"))
    assert up == down[::-1]
    assert len(up) == len(site.catalogue.listed())


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ({"api_key": "short"}, 100, "(Key has invalid format)"),
        ({"api_key": EXPIRED}, 100, "(Key has expired)"),
        ({"method": "flickr.photos.dance"}, 112, 'Method "flickr.photos.dance" not found'),
    ],
)
def test_refusals_have_the_sites_codes(
    site: StandIn, http: requests.Session, args: dict[str, str], code: int, words: str
) -> None:
    """Bad key, retired key and unknown method, in the site's words, under status 200."""
    params = {"method": "flickr.test.echo", "api_key": KEY, "format": "json", "nojsoncallback": "1"} | args
    reply = http.get(site.api_url, params=params, timeout=10)
    assert (reply.status_code, reply.json()["code"]) == (200, code)
    assert words in reply.json()["message"]


def test_other_formats_and_callbacks(site: StandIn, http: requests.Session) -> None:
    """Without format=json error 111 in XML; without nojsoncallback the answer is wrapped; POST works as GET does."""
    xml = http.get(site.api_url, params={"method": "flickr.test.echo", "api_key": KEY}, timeout=10)
    assert 'code="111"' in xml.text
    form = {"method": "flickr.test.echo", "api_key": KEY, "format": "json", "word": "é"}
    wrapped = http.post(site.api_url, data=form, timeout=10).text
    assert json.loads(wrapped.removeprefix("jsonFlickrApi(").removesuffix(")"))["word"] == {"_content": "é"}


def test_quota_is_a_rolling_count(own_site: StandIn, http: requests.Session) -> None:
    """The sixth call of five is answered 429 with a page of HTML, and is not counted as a call."""
    for _ in range(5):
        assert _ask(http, own_site, "flickr.test.echo")["stat"] == "ok"
    params = {"method": "flickr.test.echo", "api_key": KEY, "format": "json"}
    refused = http.get(own_site.api_url, params=params, timeout=10)
    assert (refused.status_code, refused.headers["Content-Type"]) == (429, "text/html")
    stats = http.get(f"{own_site.url}/_standin/stats", timeout=10).json()
    assert (stats["calls_in_window"], stats["calls_refused"]) == (5, 1)
    assert stats["calls"] == {"flickr.test.echo": 5}


def test_details_of_one_photo(site: StandIn, http: requests.Session) -> None:
    """getInfo, getSizes, getExif, licences and their history agree with the catalogue."""
    photo = _one(site, defect=None, is_exif_public=True, is_original_public=True, duplicate_of=None)
    info = _ask(http, site, "flickr.photos.getInfo", photo_id=photo.id)["photo"]
    assert (info["title"]["_content"], info["owner"]["nsid"]) == (photo.title, photo.owner.nsid)
    sizes = _ask(http, site, "flickr.photos.getSizes", photo_id=photo.id)["sizes"]["size"]
    assert [s["label"] for s in sizes][-1] == "Original"
    assert (int(sizes[-1]["width"]), int(sizes[-1]["height"])) == (photo.width, photo.height)
    exif = _ask(http, site, "flickr.photos.getExif", photo_id=photo.id)["photo"]
    assert exif["camera"] == photo.picture.camera.model
    hidden = _one(site, is_exif_public=False)
    assert _ask(http, site, "flickr.photos.getExif", photo_id=hidden.id)["code"] == 2
    licences = _ask(http, site, "flickr.photos.licenses.getInfo")["licenses"]["license"]
    assert sorted(int(row["id"]) for row in licences) == list(range(17))
    history = _ask(http, site, "flickr.photos.licenses.getLicenseHistory", photo_id=photo.id)["license_history"]
    assert [row["new_license"] for row in history] == [""]
    theirs = _ask(http, site, "flickr.people.getPhotos", user_id=photo.owner.nsid, per_page="500")
    assert set(_ids(theirs)) == {p.id for p in site.catalogue.listed() if p.owner == photo.owner}
