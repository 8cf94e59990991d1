"""Photos that come and go while a search is read: none is missed, none comes twice, and it costs few calls."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.settings import settings
from tasks.sources import flickr, named, px500, px500_api
from tasks.sources.base import Found, Query, Window
from tasks.sources.moving import LOOKS
from tasks.sources.standin import Catalogue, Fault, Px500Habits, SearchHabits, StandIn
from tasks.sources.standin.px500_rows import base62, is_nsfw

Serve = Callable[..., StandIn]
YEAR = Window(after=datetime(2024, 1, 1, tzinfo=UTC), before=datetime(2024, 12, 31, tzinfo=UTC))
PAGE, PAGES = 5, 6
PHOTOS = PAGE * PAGES


@pytest.fixture
def catalogue() -> Catalogue:
    """Six pages of photos, an hour between each; the last page is full."""
    photo, found = Catalogue.synthetic(5).listed()[0], Catalogue()
    numbered = (replace(photo, id=str(10**10 + n), title="Travel notes") for n in range(PHOTOS * 2))
    safe = [each for each in numbered if not is_nsfw(each)][:PHOTOS]
    found.put(replace(each, uploaded_at=YEAR.after + timedelta(hours=n)) for n, each in enumerate(safe))
    return found


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a page had five photos."""
    monkeypatch.setattr(flickr, "PER_PAGE", PAGE)
    monkeypatch.setattr(px500, "PAGE", PAGE)
    px500_api.session.cache_clear()


def listed(window: Window | None = YEAR, **query: Any) -> tuple[list[str], dict[str, Any]]:
    """The ids that one search of Flickr finds, and its window row."""
    found = named("flickr").search(Query(**{"text": "Travel"} | query), window, frozenset(), settings())
    return ids(found), found.windows[0]


def walked(limit: int = 1000) -> tuple[list[str], dict[str, Any]]:
    """The ids that one walk through 500px finds, and its window row."""
    found = named("500px").search(Query(text="Travel", limit=limit), None, frozenset(), settings())
    return ids(found), found.windows[0]


def ids(found: Found) -> list[str]:
    return [row["photo_id"] for row in found.listings]


def searches(site: StandIn) -> int:
    return int(site.stats()["calls"]["flickr.photos.search"])


def behind(page: int, kind: str = "deletion") -> Fault:
    """Happens once, as soon as Flickr has shown this page."""
    return Fault("api", kind, times=1, match=f"&page={page}&")


@pytest.mark.parametrize("page", range(1, PAGES + 1))
def test_a_photo_deleted_between_two_pages_hides_no_other(serve: Serve, catalogue: Catalogue, page: int) -> None:
    """The first of the next page has moved up to one that was read: that is read once more, for one call. Behind a
    last page that is full one more is asked for, and tells of what goes then.
    """
    before = {photo.id for photo in catalogue.listed()}
    site = serve(catalogue, faults=[behind(page)])
    found, row = listed()
    assert len(found) == len(set(found))
    assert set(found) == before > {photo.id for photo in catalogue.listed()}
    assert (row["state"], row["unique"], row["lost"]) == ("listed", PHOTOS, 0)
    assert searches(site) == row["pages"] == PAGES + 1 + (page == PAGES)


def test_a_photo_deleted_during_every_page_but_the_last(serve: Serve, catalogue: Catalogue) -> None:
    """More often than a search looks back: all but one photo are found, and the window counts as one with holes, which
    is asked again."""
    site = serve(catalogue, faults=[behind(page) for page in range(1, PAGES)])
    found, row = listed()
    left = {photo.id for photo in catalogue.listed()}
    assert len(left - set(found)) == 1
    assert row["state"] == "holey"
    assert searches(site) == PAGES + LOOKS
    found, row = listed()
    assert (set(found), row["state"]) == (left, "listed")


def test_photos_deleted_while_a_page_is_read_once_more(serve: Serve, catalogue: Catalogue) -> None:
    """Another photo goes behind the page that is read for the second time: the next page tells, and none is missed."""
    site = serve(catalogue, faults=[behind(2), Fault("api", "deletion", times=2, match="&page=3&")])
    found, row = listed()
    assert {photo.id for photo in catalogue.listed()} < set(found)
    assert (len(found), row["state"]) == (PHOTOS, "listed")
    assert searches(site) <= PAGES + 3


@pytest.mark.parametrize("page", range(1, PAGES + 1))
def test_a_photo_uploaded_between_two_pages_hides_no_other(serve: Serve, catalogue: Catalogue, page: int) -> None:
    """The last of a page comes again with the next one, and counts once; what was pushed off the last page is read."""
    before = {photo.id for photo in catalogue.listed()}
    site = serve(catalogue, faults=[behind(page, "upload")])
    found, row = listed()
    assert len(found) == len(set(found))
    assert set(found) == before < {photo.id for photo in catalogue.listed()}
    assert (row["state"], row["lost"]) == ("listed", 0)
    assert searches(site) == PAGES + 1


@pytest.mark.parametrize("days", range(8))
def test_counts_that_differ_for_no_reason_cost_few_calls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Totals that vary by two in a hundred from page to page: all is found, and hardly a page is read twice. As one
    that goes would not show among them, the window is asked again, as often as one with holes.
    """
    monkeypatch.setattr(flickr, "PER_PAGE", 50)
    site = serve(Catalogue.synthetic(400), search_habits=SearchHabits(has_drift=True))
    window = Window(after=YEAR.after + timedelta(days=days), before=YEAR.before + timedelta(days=366))
    found, row = listed(window, text=None, uploaded_after=window.after)
    truth = {photo.id for photo in site.catalogue.listed() if window.after <= photo.uploaded_at < window.before}
    assert len(found) == len(set(found))
    assert searches(site) - -(-len(found) // 50) <= LOOKS + 1
    assert set(found) == truth
    assert row["state"] == "holey"


def test_photos_behind_a_full_page_that_is_counted_as_the_last_are_found(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that counts too few by two in a hundred, and so a page too few: the last photos are found all the same."""
    site = serve(Catalogue.synthetic(300), search_habits=SearchHabits(has_drift=True))
    moments = sorted(photo.uploaded_at for photo in site.catalogue.listed())
    pages_too_few = 0
    for size in range(50, 100, 4):
        monkeypatch.setattr(flickr, "PER_PAGE", size)
        found, row = listed(Window(after=moments[0], before=moments[size + 1]), text=None, uploaded_after=moments[0])
        assert len(found) == size + 1
        pages_too_few += row["total"] == size
    assert pages_too_few >= 2


def test_a_window_too_short_to_divide_that_is_counted_too_low_is_asked_by_licence(
    serve: Serve, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full pages as far as a search reaches show that there is more, whatever the site counts."""
    monkeypatch.setattr(flickr, "REACH", 4 * PAGE)
    read = flickr.Pages.read
    monkeypatch.setattr(
        flickr.Pages, "read", lambda pages, reply: read(pages, {"photos": reply["photos"] | {"total": 19, "pages": 4}})
    )
    serve(catalogue)
    found, _ = listed(uploaded_after=YEAR.after)
    assert len(set(found)) > 4 * PAGE


def test_a_site_that_repeats_its_last_page_for_ever_is_left_alone(serve: Serve, catalogue: Catalogue) -> None:
    """A full page of photos that are known already is the last one."""
    pages, call = flickr.Pages(Query(text="Travel")), {"total": PAGE, "pages": 1, "perpage": PAGE}
    photos = [{"id": photo.id} for photo in catalogue.listed()[:PAGE]]
    while pages.goes_on():
        pages.read({"photos": call | {"photo": photos}})
    assert pages.read_count == 2


def test_whoever_asks_for_some_pages_gets_these(serve: Serve, catalogue: Catalogue) -> None:
    """No page beyond their number is read, whatever goes meanwhile."""
    site = serve(catalogue, faults=[behind(1)])
    found, row = listed(None, max_pages=3)
    assert (len(found), row["state"], searches(site)) == (3 * PAGE, "sampled", 3)


NEWEST = Px500Habits(is_mixed=False, sorts=("RELEVANCE", "CREATED_AT_DESC"))


def behind_cursor(page: int, kind: str = "deletion") -> Fault:
    """Happens once, as soon as 500px has shown this page."""
    cursor = base64.b64encode(f"pos-{(page - 1) * PAGE - 1}".encode()).decode()
    place = "searchResource" if page == 1 else f'"after": "{cursor}"'
    return Fault("api", kind, times=1, match=place)


@pytest.mark.parametrize("kind", ["deletion", "upload"])
@pytest.mark.parametrize("page", range(1, PAGES + 1))
def test_a_walk_misses_no_photo(serve: Serve, catalogue: Catalogue, page: int, kind: str) -> None:
    """500px's cursors are places in its list, in which a deletion moves all others up, and an upload down."""
    before = {base62(photo.id) for photo in catalogue.listed()}
    site = serve(catalogue, px500_habits=NEWEST, faults=[behind_cursor(page, kind)])
    found, row = walked()
    assert len(found) == len(set(found))
    assert set(found) - {base62(photo.id) for photo in catalogue.photos()} == set()
    assert before <= set(found)
    assert row["state"] == "listed"
    assert site.stats()["px500_calls"]["searchResource"] == row["pages"] <= PAGES + 1


def test_a_walk_looks_back_so_often_and_no_oftener(serve: Serve, catalogue: Catalogue) -> None:
    """A photo goes behind each of the first five pages: one is missed, and the next walk finds it."""
    serve(catalogue, px500_habits=NEWEST, faults=[behind_cursor(page) for page in range(1, PAGES)])
    found, row = walked()
    left = {base62(photo.id) for photo in catalogue.listed()}
    assert (len(left - set(found)), row["pages"]) == (1, PAGES + LOOKS)
    assert left == set(walked()[0])


def test_a_walk_that_is_long_enough_looks_back_no_more(serve: Serve, catalogue: Catalogue) -> None:
    """Whoever wants ten photos and has them asks for no other page."""
    site = serve(catalogue, px500_habits=NEWEST, faults=[behind_cursor(1)])
    found, _ = walked(limit=2 * PAGE)
    assert len(found) == 2 * PAGE
    assert site.stats()["px500_calls"]["searchResource"] == 2
