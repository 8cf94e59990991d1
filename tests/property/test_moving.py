"""A search of photos that are deleted and uploaded while it is read, page by page."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import SourceChanged
from tasks.sources.base import Query
from tasks.sources.flickr import Pages
from tasks.sources.moving import LOOKS

PHOTOS = st.integers(1, 40)
SIZES = st.integers(1, 7)
DELETIONS = st.lists(st.lists(st.floats(0, 1, exclude_max=True), max_size=2), max_size=60)
UPLOADS = st.lists(st.integers(0, 3), max_size=60)


def search(
    photos: int, size: int, deletions: list[list[float]], uploads: list[int]
) -> tuple[Pages, set[int], set[int]]:
    """The pages of a site that lists the newest first; photos that they showed; and those that stayed throughout.

    deletions: after each page, where in the list the photos stand that are deleted. uploads: how many come after each.
    """
    site, stayed, shown = list(range(photos)), set(range(photos)), set[int]()
    pages = Pages(Query(text="sea"))
    while pages.goes_on():
        start = (pages.page - 1) * size
        listed = site[start : start + size]
        answer: dict[str, Any] = {
            "total": len(site), "pages": -(-len(site) // size), "perpage": size, "photo": [{"id": n} for n in listed],
        }  # fmt: skip
        with suppress(SourceChanged):  # an empty page, which is asked for again
            shown |= {photo["id"] for photo in pages.read({"photos": answer})}
        for place in deletions.pop() if deletions else []:
            stayed.discard(site.pop(int(place * len(site))) if site else -1)
        for _ in range(uploads.pop() if uploads else 0):
            site.insert(0, -len(site) - 1000 * pages.read_count)
    return pages, shown, stayed


@given(PHOTOS, SIZES, DELETIONS)
def test_no_photo_is_missed_unawares(photos: int, size: int, deletions: list[list[float]]) -> None:
    """Whatever is deleted between two pages: what stays is shown, or the search knows that it may have missed some. It
    reads few pages twice, and one behind a full one.
    """
    pages, shown, stayed = search(photos, size, deletions, [])
    assert pages.has_holes or stayed <= shown
    assert pages.read_count <= photos // size + 1 + LOOKS


@given(PHOTOS, SIZES, UPLOADS)
def test_uploads_hide_no_photo(photos: int, size: int, uploads: list[int]) -> None:
    """What moves down is shown on a later page, if it still lies within what a site lists."""
    pages, shown, stayed = search(photos, size, [], uploads)
    assert stayed <= shown
    assert not pages.has_holes
