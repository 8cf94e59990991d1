"""Slices of upload time that are small enough for a site to list whole, and which of them must be asked again.

A site that lists at most 4,000 results of a search and then repeats itself is asked in windows. A window that holds
more than TARGET is divided, the parts are asked, and so on down to FLOOR; the ledger remembers both, so that a later
run goes on where this one ended. What a window listed is final up to SETTLES_IN before it was asked: photos appear in a
search some time after their upload, so the newest fortnight is asked again each time.

Source: https://github.com/WordPress/openverse-catalog/issues/26 (3,000 as target; below five minutes Flickr's answers
grow fuzzy and hold less).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from tasks.sources.base import SECOND, SETTLES_IN, Sighting, Window, WindowRow

TARGET = 3000  # results: a site counts fewer than it lists, so this stays well below its 4,000
FLOOR = timedelta(minutes=5)
CLOCKS_DIFFER = timedelta(days=1)  # at most, of one machine with itself and of workers among each other
TRIES = 3
MAX_PARTS = 64  # of one window: more would be guesses about an uneven past
Span = tuple[datetime, datetime]

# (age of a photo, how long what is known of it may stay unchecked): young photos change, old ones hardly do.
# Source: the re-ingestion ladder of CC Catalog, github.com/cc-archive/cccatalog/pull/394.
REVISITS = (
    (timedelta(days=8), timedelta(days=1)), (timedelta(days=91), timedelta(days=7)),
    (timedelta(days=391), timedelta(days=15)), (timedelta(days=1111), timedelta(days=30)),
    (timedelta(days=3271), timedelta(days=90)),
)  # fmt: skip
REVISIT_OLDEST = timedelta(days=180)


def parts(window: Window, total: int) -> list[Window]:
    """``window`` in equal parts, newest first, that hold about TARGET of its ``total`` each; none shorter than FLOOR.

    The number of parts is a power of two, as if it had been halved over and over; no part at all if it is too short.
    """
    seconds = int((window.before - window.after).total_seconds())
    most = min(MAX_PARTS, seconds // int(FLOOR.total_seconds()))
    count = 1
    while count * TARGET < total and count * 2 <= most:
        count *= 2
    if count == 1:
        return []
    edges = [window.after + timedelta(seconds=seconds * i // count) for i in range(count)] + [window.before]
    return [Window(after=edges[i], before=edges[i + 1]) for i in reversed(range(count))]


def due(span: Window, asked: Sequence[WindowRow], now: datetime) -> list[Window]:
    """What of ``span`` no window row of ``asked`` settles, newest first.

    A row settles what it listed, but for the last SETTLES_IN before it was asked; one with holes does when its window
    was asked TRIES times. What is left is divided where an earlier run has found that it must be, so that an
    interrupted search goes on with the same windows. A row that was asked later than CLOCKS_DIFFER from ``now`` was
    dated by a clock that was ahead, and settles nothing.
    """
    holes = Counter((row["uploaded_after"], row["uploaded_before"]) for row in asked if row["state"] == "holey")
    settled = [
        (
            row["uploaded_after"],
            min(row["uploaded_before"], min(row["asked_at"], now).replace(microsecond=0) - SETTLES_IN),
        )
        for row in asked
        if row["asked_at"] <= now + CLOCKS_DIFFER
        and (row["state"] == "listed" or holes[row["uploaded_after"], row["uploaded_before"]] >= TRIES)
    ]
    cuts = {
        part.after
        for row in asked
        if row["state"] == "divided"
        for part in parts(Window(after=row["uploaded_after"], before=row["uploaded_before"]), row["total"])
    }
    found = [piece for gap in gaps((span.after, span.before), settled) for piece in divided(gap, cuts)]
    return [Window(after=after, before=before) for after, before in reversed(found)]


def gaps(span: Span, settled: Iterable[Span]) -> list[Span]:
    """The parts of ``span`` that none of ``settled`` covers, oldest first."""
    found, start = [], span[0]
    for after, before in sorted(each for each in settled if each[0] < each[1]):
        if after > start and start < span[1]:
            found.append((start, min(after, span[1])))
        start = max(start, before)
    if start < span[1]:
        found.append((start, span[1]))
    return found


def divided(gap: Span, cuts: Iterable[datetime]) -> list[Span]:
    """``gap`` in pieces that end at ``cuts``, oldest first."""
    edges = [gap[0], *sorted(cut for cut in cuts if gap[0] < cut < gap[1]), gap[1]]
    return list(pairwise(edges))


def revisit_after(age: timedelta) -> timedelta:
    """How long what is known of a photo of this ``age`` is good for."""
    return next((interval for limit, interval in REVISITS if age < limit), REVISIT_OLDEST)


def stale(seen: Sequence[Sighting], now: datetime, calls: int, per_page: int) -> tuple[list[Window], int]:
    """Windows to list again because what is known of their photos is old, the most overdue first; and their calls.

    ``seen``: every photo of one query. ``per_page``: photos that one call lists.
    """
    known, size = sorted(seen), TARGET * 4 // 5
    overdue = []
    for chunk in (known[start : start + size] for start in range(0, len(known), size)):
        uploaded = chunk[-1][0]
        late = now - min(observed for _, observed in chunk) - revisit_after(now - uploaded)
        if late > timedelta(0):
            overdue.append((late, len(chunk) // per_page + 1, Window(after=chunk[0][0], before=uploaded + SECOND)))
    chosen, spent = [], 0
    for _, cost, window in sorted(overdue, key=lambda each: each[0], reverse=True):
        if spent + cost > calls:
            break
        chosen.append(window)
        spent += cost
    return chosen, spent
