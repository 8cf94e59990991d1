"""The stand-in's index of photos by upload time."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.sources.standin import Catalogue, SearchHabits
from tasks.sources.standin.photo_search import Arguments, UploadOrder, search

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def found(catalogue: Catalogue, args: Arguments, order: UploadOrder | None) -> list[str]:
    photos = catalogue.photos() if order is None else order.around(catalogue.photos(), args)
    return [photo.id for photo in search(photos, {"per_page": "500", **args}, SearchHabits(fuzz=1.0), NOW).photos]


@pytest.mark.parametrize("minutes", [0, 3, 90, 60 * 24 * 30])
def test_a_search_with_the_index_finds_what_one_without_it_finds(minutes: int) -> None:
    """The same photos in the same order: both ends, the fuzz of narrow windows, photos that were added later."""
    catalogue, order = Catalogue.synthetic(400), UploadOrder()
    for photo in catalogue.photos()[::40]:
        first, last = photo.uploaded_at, photo.uploaded_at + timedelta(minutes=minutes)
        for distance in (timedelta(minutes=-30), timedelta(minutes=minutes + 30)):
            catalogue.add(1, uploaded_at=first + distance)
        times = {"min_upload_date": str(int(first.timestamp())), "max_upload_date": str(int(last.timestamp()))}
        for args in (times, dict([*times.items()][:1]), dict([*times.items()][1:]), {"text": photo.tags[0]}):
            assert found(catalogue, args, order) == found(catalogue, args, None)
        assert photo.id in found(catalogue, times, order)


def test_an_owner_is_known_outside_of_a_window_too() -> None:
    """A window without photos of an owner is empty, and no error."""
    catalogue = Catalogue.synthetic(50)
    args = {"user_id": catalogue.photos()[0].owner.nsid, "max_upload_date": "2010-01-01"}
    assert found(catalogue, args, UploadOrder()) == []
