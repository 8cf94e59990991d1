"""Windows of upload time: whatever the photos' dates, each is asked for, none twice, and nothing settled again."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.sources import windows
from tasks.sources.base import SETTLES_IN, Window

BEGAN, NOW = datetime(2004, 2, 10, tzinfo=UTC), datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
SPAN = Window(after=BEGAN, before=NOW.replace(microsecond=0) + timedelta(seconds=1))
SECONDS = int((SPAN.before - BEGAN).total_seconds())
Row = dict[str, object]

# (second, how many photos were uploaded in it): bursts and emptiness, as real sites have them
uploads = st.dictionaries(st.integers(0, SECONDS - 1), st.integers(1, 6000), max_size=30)


def ask(window: Window, photos: dict[int, int], asked_at: datetime) -> tuple[Row, list[Window]]:
    """The window row of a site that lists a window whole unless it can be divided, and the parts."""
    total = sum(
        count for second, count in photos.items() if window.after <= BEGAN + timedelta(seconds=second) < window.before
    )
    parts = windows.parts(window, total) if total > windows.TARGET else []
    row = {
        "uploaded_after": window.after, "uploaded_before": window.before, "asked_at": asked_at, "total": total,
        "state": "divided" if parts else "listed",
    }  # fmt: skip
    return row, parts


def crawl(todo: list[Window], photos: dict[int, int], asked_at: datetime, most: int = 10**6) -> list[Row]:
    rows = []
    while todo and len(rows) < most:
        row, parts = ask(todo.pop(0), photos, asked_at)
        rows.append(row)
        todo += parts
    return rows


def listed(rows: list[Row]) -> list[tuple[datetime, datetime]]:
    return sorted((row["uploaded_after"], row["uploaded_before"]) for row in rows if row["state"] == "listed")


@given(uploads)
@settings(deadline=None)
def test_listed_windows_tile_the_whole_span(photos: dict[int, int]) -> None:
    """They touch, they do not overlap, and no window is crowded unless it is too short to divide."""
    rows = crawl(windows.due(SPAN, [], NOW), photos, NOW)
    edges = listed(rows)
    assert edges[0][0] == SPAN.after
    assert edges[-1][1] == SPAN.before
    assert all(first[1] == second[0] for first, second in pairwise(edges))
    for row in rows:
        if row["state"] == "listed" and row["total"] > windows.TARGET:
            assert row["uploaded_before"] - row["uploaded_after"] < 2 * windows.FLOOR


@given(uploads, st.integers(0, 40))
@settings(deadline=None)
def test_an_interrupted_search_goes_on_with_the_windows_that_are_left(photos: dict[int, int], done: int) -> None:
    """What was asked before a crash and what is asked after it are, together, what would have been asked without."""
    whole = crawl(windows.due(SPAN, [], NOW), photos, NOW)
    before = crawl(windows.due(SPAN, [], NOW), photos, NOW, most=done)
    after = crawl(windows.due(SPAN, before, NOW), photos, NOW)
    settled = SPAN.before - SETTLES_IN - timedelta(days=1)
    closed = [window for window in listed(whole) if window[1] < settled]
    assert [window for window in sorted({*listed(before), *listed(after)}) if window[1] < settled] == closed
    assert not {window for window in listed(before) if window[1] < settled} & set(listed(after)), "none is asked twice"


@given(uploads, st.integers(0, 400))
@settings(deadline=None)
def test_a_later_run_asks_for_what_could_have_changed(photos: dict[int, int], days: int) -> None:
    """The fortnight before the last run, and the time since; nothing else, and nothing of it is left out."""
    rows = crawl(windows.due(SPAN, [], NOW), photos, NOW)
    later = NOW + timedelta(days=days)
    due = windows.due(Window(after=BEGAN, before=later), rows, later)
    assert sum((window.before - window.after for window in due), timedelta(0)) == later - (
        NOW.replace(microsecond=0) - SETTLES_IN
    )


@given(st.datetimes(datetime(2004, 3, 1), datetime(2026, 1, 1)), st.integers(1, 10**9), st.integers(0, 10**8))
def test_parts_tile_their_window(after: datetime, seconds: int, total: int) -> None:
    """Newest first, a power of two of them, each five minutes long or longer."""
    after = after.replace(tzinfo=UTC, microsecond=0)
    window = Window(after=after, before=after + timedelta(seconds=seconds))
    parts = windows.parts(window, total)
    if parts:
        assert (parts[-1].after, parts[0].before) == (window.after, window.before)
        assert all(newer.after == older.before for newer, older in pairwise(parts))
        assert len(parts) & (len(parts) - 1) == 0
        assert min(part.before - part.after for part in parts) >= windows.FLOOR
    else:
        assert total <= windows.TARGET or seconds < 600


def test_old_knowledge_is_refreshed_first_and_within_its_calls() -> None:
    """The most overdue windows come first; what is fresh is left alone, and the calls are never exceeded."""
    day = timedelta(days=1)
    fresh = [(NOW - 400 * day, NOW - day)] * 3000
    old = [(NOW - 800 * day, NOW - 100 * day)] * 3000
    older = [(NOW - 2000 * day, NOW - 300 * day)] * 3000
    chosen, calls = windows.stale(fresh + old + older, NOW, 100, 500)
    assert {window.after for window in chosen} == {NOW - 800 * day, NOW - 2000 * day}
    assert chosen[0].after == NOW - 2000 * day
    assert calls <= 20
    few, calls = windows.stale(fresh + old + older, NOW, 6, 500)
    assert len(few) == 1
    assert calls <= 6
    assert windows.stale(fresh, NOW, 100, 500) == ([], 0)


def test_a_window_with_a_hole_is_asked_three_times() -> None:
    """Then it is taken as it is, and its loss stands in the ledger."""
    after, before = NOW - timedelta(days=900), NOW - timedelta(days=800)
    window = Window(after=after.replace(microsecond=0), before=before.replace(microsecond=0))
    row = {"uploaded_after": window.after, "uploaded_before": window.before, "asked_at": NOW, "total": 9}
    holey = row | {"state": "holey"}
    assert windows.due(window, [holey] * 2, NOW) == [window]
    assert windows.due(window, [holey] * 3, NOW) == []
    assert windows.due(window, [holey, row | {"state": "listed"}], NOW) == []
