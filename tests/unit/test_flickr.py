"""Flickr's replies become rows, whatever types they come in, and its errors become classes that say what to do."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from storage.records import SCHEMAS
from storage.settings import Settings
from tasks.errors import (
    ConfigError,
    CredentialsRejected,
    DarkroomError,
    PermanentSourceError,
    SourceChanged,
    SourceUnavailable,
)
from tasks.sources.base import Query, Window
from tasks.sources.flickr import Flickr, Pages, arguments, is_sample, span
from tasks.sources.flickr_api import KEY_PAGE, TRIES, Api, PhotoGone, TooManyResults, parse_licences, readable
from tasks.sources.flickr_rows import LADDER, integer, listing, renditions
from tasks.verdicts import Answer
from tasks.web import Limits

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
QUERY = Query(text="harbour", label="sea")
LICENCES = {"11": ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"), "0": ("All Rights Reserved", "")}
PHOTO: dict[str, Any] = {
    "id": "53000000017", "owner": "10000001@N00", "title": "Harbour &amp; <b>dusk</b>", "license": "11",
    "dateupload": "1751000000", "datetaken": "2025-06-20 21:14:03", "datetakenunknown": "0", "ownername": "Ann Example",
    "tags": "harbour dusk bluehour", "latitude": "52.370000", "longitude": 4.89, "accuracy": "15", "media": "photo",
    "url_l": "https://h/l.jpg", "height_l": 683, "width_l": "1024",
    "url_o": "https://h/o.jpg", "height_o": "4000", "width_o": "6000",
    "url_k": "https://h/k.jpg", "height_k": 1365, "width_k": 2048,
}  # fmt: skip


def row(query: Query = QUERY, **changes: Any) -> dict[str, Any]:
    return listing(PHOTO | changes, query, LICENCES, NOW)


def test_a_photo_becomes_a_row_of_listings() -> None:
    """Every column of the listing is filled from the search reply alone."""
    assert row() == {
        "source": "flickr", "photo_id": "53000000017", "query_id": QUERY.query_id, "observed_at": NOW,
        "owner_id": "10000001@N00", "owner_name": "Ann Example", "title": "Harbour &amp; <b>dusk</b>",
        "tags": ["harbour", "dusk", "bluehour"], "label": "sea",
        "licence": "CC BY 4.0", "licence_url": "https://creativecommons.org/licenses/by/4.0/",
        "page_url": "https://www.flickr.com/photos/10000001@N00/53000000017/", "image_url": "https://h/o.jpg",
        "size_label": "Original", "listed_width": 6000, "listed_height": 4000,
        "uploaded_at": datetime(2025, 6, 27, 4, 53, 20, tzinfo=UTC),
        "taken_at": datetime(2025, 6, 20, 21, 14, 3, tzinfo=UTC),
        "latitude": 52.37, "longitude": 4.89, "is_open": True,
        "fallbacks": [{"label": "Large 2048", "url": "https://h/k.jpg"}, {"label": "Large", "url": "https://h/l.jpg"}],
    }  # fmt: skip
    assert set(row()) == set(SCHEMAS["listings"].names) - {"listed_etag"}, "which only files that lie here have"


def test_numbers_may_come_as_text_and_texts_as_objects() -> None:
    """The same photo with every type turned over is the same row."""
    turned = {
        "id": 53000000017, "license": 11, "dateupload": 1751000000, "datetakenunknown": 0, "accuracy": 15,
        "latitude": 52.37, "longitude": "4.89", "title": {"_content": PHOTO["title"]}, "width_o": 6000,
        "height_o": "4000",
    }  # fmt: skip
    assert row(**turned) == row()


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"datetakenunknown": "1"}, "taken_at", None),
        ({"datetakenunknown": 1}, "taken_at", None),
        ({"datetaken": "0000-00-00 00:00:00"}, "taken_at", None),
        ({"datetaken": "2025-02-30 00:00:00"}, "taken_at", None),
        ({"datetaken": None}, "taken_at", None),
        ({"dateupload": "0"}, "uploaded_at", None),
        ({"dateupload": "yesterday"}, "uploaded_at", None),
        ({"dateupload": "99999999999999"}, "uploaded_at", None),
        ({"accuracy": 0, "latitude": 0, "longitude": 0}, "latitude", None),
        ({"accuracy": "0"}, "longitude", None),
        ({"latitude": "north"}, "latitude", None),
        ({"latitude": "nan"}, "latitude", None),
        ({"longitude": 181}, "longitude", None),
        ({"license": "17"}, "licence", "unknown:17"),
        ({"license": "17"}, "licence_url", None),
        ({"license": None}, "licence", "unstated"),
        ({"license": "0"}, "licence_url", None),
        ({"tags": ""}, "tags", []),
        ({"tags": None}, "tags", []),
        ({"owner": None}, "page_url", None),
        ({"width_o": "x"}, "listed_width", None),
        ({"title": None}, "title", None),
    ],
)
def test_odd_values_become_nothing_rather_than_nonsense(changes: dict[str, Any], column: str, value: Any) -> None:
    """What Flickr made up, left out or mangled is null; the photo stays."""
    assert row(**changes)[column] == value


def test_a_row_of_nothing_but_an_id_is_kept() -> None:
    """A photo whose owner shows no picture has a row, and the row fits the schema."""
    bare = listing({"id": 7}, QUERY, {}, NOW)
    assert (bare["photo_id"], bare["image_url"], bare["fallbacks"]) == ("7", None, [])
    assert pa.Table.from_pylist([bare, row()], schema=SCHEMAS["listings"]).num_rows == 2


def test_the_ladder_descends_from_the_size_that_was_asked() -> None:
    """Nothing larger than the size is offered; an original counts by its own pixels."""
    every = {f"url_{letter}": f"https://h/{letter}.jpg" for letter in reversed(LADDER)}
    labels = [rung["label"] for rung in renditions(every, "original")]
    assert labels == list(LADDER.values())
    assert [rung["label"] for rung in renditions(every, "Large 1600")] == [
        "Large 1600",
        "Large",
        "Medium 800",
        "Medium 640",
    ]
    small = {"url_o": "https://h/o.jpg", "width_o": "1500", "height_o": 1000, "url_l": "https://h/l.jpg"}
    assert [rung["label"] for rung in renditions(small, "Large 1600")] == ["Original", "Large"]
    assert [rung["label"] for rung in renditions(small, "Large")] == ["Large"]


def test_a_search_by_place_alone_has_a_first_date() -> None:
    """Without one, Flickr would show the uploads of the last twelve hours only."""
    asked = arguments(Query(bbox=(4.7, 52.3, 5.0, 52.4)))
    assert (asked["bbox"], asked["per_page"]) == ("4.7,52.3,5.0,52.4", "250")
    assert int(asked["min_upload_date"]) == datetime(2004, 2, 10, tzinfo=UTC).timestamp()
    assert "min_upload_date" not in arguments(QUERY)


def test_a_window_includes_its_first_second_and_not_its_last() -> None:
    """Flickr's dates include both ends; ours touch without overlapping."""
    window = Window(after=datetime(2024, 1, 1, tzinfo=UTC), before=datetime(2024, 2, 1, tzinfo=UTC))
    asked = arguments(Query(text="sea", uploaded_after=datetime(2020, 1, 1, tzinfo=UTC)), window)
    assert (asked["min_upload_date"], asked["max_upload_date"]) == ("1704067200", "1706745599")


def test_a_query_spans_from_the_first_day_until_now_or_as_it_says() -> None:
    """Whole seconds; a date of its own counts to its end, and the future is not asked for."""
    assert span(QUERY, NOW) == Window(after=datetime(2004, 2, 10, tzinfo=UTC), before=NOW + timedelta(seconds=1))
    dated = Query(uploaded_after=NOW - timedelta(days=3, milliseconds=1), uploaded_before=NOW - timedelta(days=1))
    assert span(dated, NOW) == Window(
        after=NOW - timedelta(days=3), before=NOW - timedelta(days=1) + timedelta(seconds=1)
    )
    assert span(Query(uploaded_before=NOW + timedelta(days=9)), NOW).before == NOW + timedelta(seconds=1)


def test_a_query_for_some_photos_is_asked_as_one() -> None:
    """Pages and limits have no windows, and are asked anew each time."""
    for some in (Query(text="a", limit=9), Query(text="a", max_pages=4), Query(text="a", start_page=2)):
        assert is_sample(some)
        assert Flickr().due(some, [], NOW) == [None]
        assert Flickr().again(some, [(NOW, NOW - timedelta(days=999))], NOW, 100) == ([], 0)
    assert Flickr().due(QUERY, [], NOW) == [span(QUERY, NOW)]


def test_the_name_of_a_query_is_what_it_looks_for() -> None:
    """Other dates, pages and limits are the same search; another text, licence or size is not."""
    same = Query(text="harbour", label="sea", uploaded_before=NOW, limit=3, max_pages=2, start_page=4)
    assert same.query_id == QUERY.query_id
    for other in (Query(text="harbour"), Query(text="harbour", label="sea", size="Large"), Query(text="sea")):
        assert other.query_id != QUERY.query_id


def test_a_query_is_put_in_flickrs_words() -> None:
    """Tags are joined, dates are whole seconds that include both ends, every fact is asked for."""
    after, before = (
        datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
        datetime(2024, 2, 1, 0, 0, 0, 500_000, tzinfo=UTC),
    )
    asked = arguments(Query(tags=("sea", "-boat"), licences=("4", "11"), uploaded_after=after, uploaded_before=before))
    assert asked["tags"] == "sea,-boat"
    assert asked["tag_mode"] == "all"
    assert asked["license"] == "4,11"
    assert (asked["min_upload_date"], asked["max_upload_date"]) == ("1704067201", "1706745600")
    assert {"license", "date_upload", "owner_name", "geo", "url_o", "url_z"} <= set(asked["extras"].split(","))
    assert "text" not in asked


@pytest.mark.parametrize(
    ("code", "message", "kind", "says"),
    [
        *[(code, "busy", SourceUnavailable, "later")
          for code in (0, 10, 105, 106, 201)],
        (777, "Sorry, the Flickr API service is not currently available.", SourceUnavailable, "later"),
        (100, "Invalid API Key (Key has invalid format)", CredentialsRejected, "malformed.*services/apps/create"),
        (100, "Invalid API Key (Key has expired)", CredentialsRejected, "expired.*services/apps/create"),
        (100, "Invalid API Key", CredentialsRejected, "not accepted"),
        *[(code, "Signature", CredentialsRejected, "FLICKR_API_KEY") for code in (96, 97, 98, 99)],
        (3, "Parameterless searches have been disabled", ConfigError, "nothing that Flickr can search for"),
        (20, "Excessive photo offset in search", TooManyResults, "narrow it"),
        (95, "SSL is required", ConfigError, "https"),
        *[(code, "no", PermanentSourceError, "asking again will not help")
          for code in (1, 2, 4, 5, 11, 12, 15, 16, 17, 18, 19, 111, 112, 114, 115, 116, 999)],
        (None, "no", PermanentSourceError, "refuses"),
    ],
)  # fmt: skip
def test_every_error_code_says_what_to_do(code: int | None, message: str, kind: type[Exception], says: str) -> None:
    """Wait, get another key, change the query: no code of Flickr's lists is left to chance."""
    with pytest.raises(kind, match=says) as caught:
        readable("flickr.photos.search", failing(code, message))
    assert caught.type is kind


@pytest.mark.parametrize("code", [0, 1, 2, 116])
@pytest.mark.parametrize("method", ["flickr.photos.search", "flickr.photos.getInfo"])
def test_no_error_tells_the_key(method: str, code: int) -> None:
    """A site that repeats the key, named or bare, does not bring it into logs and rows."""
    with pytest.raises(DarkroomError) as caught:
        readable(method, failing(code, "the key 0123abcd may not: api_key=0123abcd"), "0123abcd")
    assert "0123abcd" not in str(caught.value)
    assert "the key *** may not" in str(caught.value)


def test_a_call_tells_its_errors_without_its_key() -> None:
    """The key is known where the call is made."""
    client: Any = SimpleNamespace(get=lambda url, **asked: failing(2, f"{asked['params']['api_key']} may not"))
    with pytest.raises(PermanentSourceError, match=r"2: \*\*\* may not"):
        Api(client, Settings(FLICKR_API_KEY="0123abcd")).call("flickr.photos.search", dict)


def failing(code: object, message: str) -> Answer:
    return Answer("https://f/", "ok", 200, body=json.dumps({"stat": "fail", "code": code, "message": message}).encode())


def test_a_photo_that_is_not_found_is_gone() -> None:
    """What code 1 means depends on what was asked: of a photo, that it is there no more."""
    with pytest.raises(PhotoGone, match=r"flickr\.photos\.getInfo: 1: Photo not found"):
        readable("flickr.photos.getInfo", failing(1, "Photo not found"))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"<html>Too bad</html>", "the whole body"), (b'{"stat":"ok","photos":{', "the whole body"),
        (b'{"stat":"fail","code":1,}', "the whole body"), (b"", "the whole body"), (b"[]", "the whole body"),
        (b'{"a":1}', "stat"), (b"\xff\xfe\x00", "the whole body"),
    ],
)  # fmt: skip
def test_a_reply_that_is_none_names_the_place(body: bytes, field: str) -> None:
    """HTML, half a reply and a trailing comma are told apart from an error of Flickr's."""
    with pytest.raises(SourceChanged) as caught:
        readable("flickr.photos.search", Answer("https://f/", "ok", 200, body=body))
    assert caught.value.field == field


def test_errors_in_a_good_envelope_are_raised() -> None:
    """HTTP 200 may carry a failure, its code as number or as text."""
    for code in (105, "105"):
        with pytest.raises(SourceUnavailable):
            readable("flickr.photos.search", failing(code, "down"))


def test_licences_are_read_by_id_in_any_order() -> None:
    """Ids come as numbers or text; their names are Flickr's of today."""
    items = [{"id": 11, "name": "CC BY 4.0", "url": "u"}, {"id": "0", "name": "All Rights Reserved", "url": ""}]
    assert parse_licences({"licenses": {"license": items}}) == {
        "11": ("CC BY 4.0", "u"),
        "0": ("All Rights Reserved", ""),
    }
    with pytest.raises(SourceChanged):
        parse_licences({"licenses": {"license": [{"name": "?"}]}})


def reply(pages: int | str = 3, total: int | str = 611, photos: int = 250, perpage: int = 250) -> dict[str, Any]:
    return {
        "photos": {
            "pages": pages,
            "total": total,
            "perpage": perpage,
            "photo": [{"id": n} for n in range(1, photos + 1)],
        }
    }


def test_pages_end_where_flickr_does() -> None:
    """The last page ends the search, whatever type its number has; the total is the one it began with."""
    pages = Pages(QUERY)
    for page, total in ((1, "611"), (2, "611"), (3, 620)):
        assert pages.goes_on()
        assert pages.page == page
        pages.read(reply(pages="3", total=total))
    assert not pages.goes_on()
    assert (pages.total, pages.read_count) == (611, 3)


def test_an_empty_page_in_the_middle_is_asked_for_again_and_remembered() -> None:
    """Three more times; then the search goes on behind it, and knows that it has a hole. At the end it is no hole."""
    pages = Pages(QUERY)
    pages.read(reply(pages=4, total=1000))
    for _ in range(TRIES - 1):
        with pytest.raises(SourceChanged, match="page 2"):
            pages.read(reply(pages=4, total=1000, photos=0))
        assert (pages.page, pages.has_holes) == (2, False)
    pages.read(reply(pages=4, total=1000, photos=0))
    assert (pages.page, pages.has_holes) == (3, True)
    last = Pages(QUERY)
    for photos in (250, 250, 250, 0):
        last.read(reply(pages=4, total=1000, photos=photos))
    assert (last.goes_on(), last.has_holes) == (False, False)


def test_a_search_does_not_end_because_a_later_page_says_so() -> None:
    """What the first page promised is read, whatever the second thinks of it."""
    pages = Pages(QUERY)
    pages.read(reply(pages=4, total=1000))
    pages.read(reply(pages=1, total=1))
    assert pages.goes_on()
    assert (pages.total, pages.last_page) == (1000, 4)


def test_a_search_that_shrinks_looks_at_the_page_before_once_more() -> None:
    """Only so often; and if more results are gone than a page has, or no look is left, it may have missed some."""
    pages, read = Pages(QUERY), list[int]()
    for total in (1000, 999, 999, 999, 998, 998, 998):
        read.append(pages.page)
        pages.read(reply(pages=5, total=total, photos=1 + len(read)))
    assert (read, pages.has_holes) == ([1, 2, 1, 3, 4, 3, 5], False)
    assert not pages.goes_on()
    pages = Pages(QUERY)
    for total, photos in ((1000, 2), (700, 3), (700, 4)):
        pages.read(reply(pages=4, total=total, photos=photos))
    assert (pages.page, pages.has_holes) == (3, True)


@pytest.mark.parametrize("changes", [{"pages": None}, {"total": None}, {"total": 0}, {"total": "many"}])
def test_a_page_that_does_not_say_how_much_there_is_is_a_change(changes: dict[str, Any]) -> None:
    """Without it nobody knows whether a window was listed whole."""
    broken = reply()
    broken["photos"] |= changes
    with pytest.raises(SourceChanged, match="total"):
        Pages(QUERY).read(broken)


def test_pages_never_go_past_four_thousand() -> None:
    """Behind 4,000 results Flickr repeats itself: 16 pages of 250 are the end, and the loss is known."""
    pages = Pages(Query(bbox=(4, 52, 5, 53)))
    while pages.goes_on():
        pages.read(reply(pages=48, total=12_000))
    assert pages.read_count == 16


def test_the_page_size_that_flickr_echoes_counts() -> None:
    """If Flickr gives smaller pages than asked for, more of them lie within its reach."""
    pages = Pages(QUERY)
    while pages.goes_on():
        pages.read(reply(pages=48, total=12_000, perpage=250))
    assert pages.read_count == 16


def test_pages_start_and_stop_where_the_query_says() -> None:
    """start_page and max_pages read exactly these pages."""
    pages = Pages(Query(text="a", start_page=2, max_pages=2))
    read = []
    while pages.goes_on():
        read.append(pages.page)
        pages.read(reply(pages=20, perpage=500))
    assert read == [2, 3]


def test_a_start_behind_flickrs_reach_is_refused() -> None:
    """Page 9 of 500 would only repeat page 8."""
    with pytest.raises(ConfigError, match="must not exceed 8"):
        Pages(Query(text="a", start_page=9))


@pytest.mark.parametrize(
    "broken", [{}, {"photos": None}, {"photos": {"photo": {}}}, {"photos": {"photo": [{"owner": "a"}]}}]
)
def test_a_page_without_photos_or_ids_is_a_change(broken: dict[str, Any]) -> None:
    """Nothing is guessed about a reply that lost its list or an id."""
    with pytest.raises(SourceChanged):
        Pages(QUERY).read(broken)


def test_a_missing_key_is_told_in_one_sentence() -> None:
    """Before any work: what is missing, and where to get it."""
    with pytest.raises(CredentialsRejected) as caught:
        Flickr().check(Settings(FLICKR_API_KEY=""))
    assert "FLICKR_API_KEY" in str(caught.value)
    assert KEY_PAGE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_does_not_travel_in_the_clear() -> None:
    """Plain http is for this machine only."""
    Flickr().check(Settings(FLICKR_API_KEY="k", flickr_url="http://127.0.0.1:8000/services/rest/"))
    Flickr().check(Settings(FLICKR_API_KEY="k"))
    with pytest.raises(ConfigError, match="https://"):
        Flickr().check(Settings(FLICKR_API_KEY="k", flickr_url="http://api.flickr.com/services/rest/"))


def test_a_budget_beyond_flickrs_is_refused() -> None:
    """At Flickr itself; a stand-in may be asked as fast as it can."""
    Flickr().check(Settings(FLICKR_API_KEY="k", api_calls_per_hour=3450))
    local = "http://127.0.0.1:8000/services/rest/"
    Flickr().check(Settings(FLICKR_API_KEY="k", api_calls_per_hour=10**8, flickr_url=local))
    with pytest.raises(ConfigError, match=r"DARKROOM_API_CALLS_PER_HOUR must not exceed 3,450"):
        Flickr().check(Settings(FLICKR_API_KEY="k", api_calls_per_hour=3600))


@pytest.mark.parametrize(
    ("value", "number"), [(5, 5), ("5", 5), ("-5", -5), (5.5, None), (None, None), (True, None), ("2" * 12, None)]
)
def test_integers_are_read_from_either_type(value: Any, number: int | None) -> None:
    """A number, or a text that is one; 32 bits."""
    assert integer(value) == number


class Script:
    """A client that answers from a script, and remembers how long it was told to sleep."""

    limits = Limits(backoff_s=1, backoff_max_s=100)

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.slept: list[float] = []

    def get(self, url: str, **options: Any) -> Answer:
        return self.answers.pop(0)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


CUT = Answer("https://f/?api_key=***", "truncated", 200, body=b'{"stat":"ok"')
OK = Answer("https://f/", "ok", 200, body=b'{"stat":"ok"}')


def test_a_reply_that_was_cut_is_asked_for_again() -> None:
    """A transfer that breaks off is worth three more calls, ever later; then the place is named."""
    client = Script(CUT, CUT, OK)
    api = Api(client, Settings(FLICKR_API_KEY="k"))  # type: ignore[arg-type]
    assert api.call("flickr.test.echo", dict) == {"stat": "ok"}
    assert api.calls == 3
    assert 1 <= client.slept[0] <= 2 <= client.slept[1] <= 4
    with pytest.raises(SourceChanged) as caught:
        Api(Script(CUT, CUT, CUT, CUT), Settings(FLICKR_API_KEY="k")).call("flickr.test.echo", dict)  # type: ignore[arg-type]
    assert caught.value.url == "https://f/?api_key=***"
