"""The journal of a download, wherever the process that writes it is killed."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storage import journal
from storage.layout import Layout

moments = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
rows = st.fixed_dictionaries(
    {
        "source": st.text(), "photo_id": st.text(), "attempt": st.integers(0, 99), "fetched_at": moments,
        "next_try_at": st.none() | moments, "etag": st.none() | st.text(),
    }
)  # fmt: skip


@given(st.lists(rows, min_size=1, max_size=4), rows, st.data())
def test_a_journal_cut_anywhere_has_its_whole_rows_and_goes_on(
    kept: list[dict[str, Any]], later: dict[str, Any], data: st.DataObject
) -> None:
    """Only the row that the cut tears is lost, and what is appended behind it can be read."""
    with tempfile.TemporaryDirectory() as folder:
        where, ends = Layout(Path(folder)), []
        path = where.journal("d") / "batch.jsonl"
        with journal.keeping(where, "d", "batch") as book:
            for row in kept:
                book.note(row)
                ends.append(path.stat().st_size)
        size = data.draw(st.integers(0, path.stat().st_size))
        with path.open("r+b") as stream:
            stream.truncate(size)
        whole = [row for row, end in zip(kept, ends, strict=True) if end <= size]
        with journal.keeping(where, "d", "batch") as book:
            assert book.rows == whole
            book.note(later)
        with journal.keeping(where, "d", "batch") as book:
            assert book.rows == [*whole, later]
