"""CSV that people open in a spreadsheet: text of strangers stays text.

Source: OWASP, "CSV Injection".
"""

import csv
import io
import re
from collections.abc import Iterable

FORMULA = re.compile(r"^[\s\x00-\x1f]*[=+\-@＝＋－＠|%]")  # a spreadsheet would run it


def cell(text: str) -> str:
    """``text`` on one line and, if a spreadsheet could take it for a formula, behind an apostrophe."""
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)
    return f"'{text}" if FORMULA.match(text) else text


def csv_of(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """``rows`` as CSV below the names of ``columns``."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows(map(cell, row) for row in rows)
    return stream.getvalue()
