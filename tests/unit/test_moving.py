"""When a page of a search is read once more because results have moved up."""

from collections.abc import Iterable

import pytest

from tasks.sources.moving import LOOKS, Moving


def looks(moving: Moving, totals: Iterable[int], finds: bool) -> list[int]:
    """The pages, by their place in ``totals``, after which the one before is read once more; whether that ``finds``
    what no page has shown.
    """
    found = []
    for place, total in enumerate(totals):
        if moving.has_moved(total, {f"{place}"}, 50):
            found.append(place)
            assert not moving.has_moved(total, {f"moved {place}"} if finds else {"0"}, 50), "a look follows no look"
    return found


def test_each_fall_is_looked_into_while_looks_find_something() -> None:
    """Up to LOOKS of a search; whatever falls then may be missed."""
    moving = Moving()
    assert looks(moving, [100, 100, 92, 93, 92, 91], finds=True) == [2, 4, 5]
    assert not moving.may_miss
    assert looks(moving, range(90, 80, -1), finds=True) == list(range(LOOKS - 3))
    assert moving.may_miss


@pytest.mark.parametrize(
    ("totals", "expected", "may_miss"),
    [
        ([2000, 1960, 2010, 1950, 1948, 1990, 1930], [1, 4], True), ([2000, 2040, 1990, 2020, 1950], [], True),
        ([100, 99, 98, 97], [1, 2, 3], False), ([100, 101, 103, 102], [3], False),
        ([2000, 2040, 2041, 2060], [], False), ([2000, 2010, 1998], [2], False), ([2000, 2010, 2009], [], True),
    ],
)  # fmt: skip
def test_counts_that_were_wrong_once_are_believed_less(totals: list[int], expected: list[int], may_miss: bool) -> None:
    """After a look that found nothing, or a rise by many, only a count just below all others is looked into; behind
    any other that falls something may be missed."""
    moving = Moving()
    assert looks(moving, totals, finds=False) == expected
    assert moving.may_miss is may_miss


def test_more_that_go_than_a_page_has_are_missed() -> None:
    """One look shows a page, and no more than that."""
    moving = Moving()
    assert looks(moving, [200, 150], finds=True) == [1]
    assert not moving.may_miss
    assert looks(moving, [99], finds=True) == [0]
    assert moving.may_miss


def test_photos_that_go_during_a_look_count_too() -> None:
    """What had moved to the page before may have moved on when that is read."""
    moving = Moving()
    assert not moving.has_moved(100, {"1"}, 10)
    assert moving.has_moved(95, {"2"}, 10)
    assert not moving.has_moved(89, {"3"}, 10)
    assert moving.may_miss
