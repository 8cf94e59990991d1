"""CSV that people open in a spreadsheet: text of strangers stays text.

Source: OWASP, "CSV Injection".
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence

FORMULA = re.compile(r"^[\s\x00-\x1f]*[=+\-@＝＋－＠|%]")  # a spreadsheet would run it


def cell(text: str) -> str:
    """``text`` on one line and, if a spreadsheet could take it for a formula, behind an apostrophe."""
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)
    return f"'{text}" if FORMULA.match(text) else text


def csv_of(columns: Sequence[str], rows: Iterable[Iterable[str]], exact: Collection[str] = ()) -> str:
    """``rows`` as CSV below the names of ``columns``; the values of those in ``exact`` stand as they are, quoted."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    shown = [str if name in exact else cell for name in columns]
    writer.writerows([show(text) for show, text in zip(shown, row, strict=True)] for row in rows)
    return stream.getvalue()
