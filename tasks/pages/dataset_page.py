"""What a report says of a dataset: its sections in their order, and what each of them shows.

Aggregates are SQL over the columns that they need; whole rows are read only for the photos that are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from storage import snapshots
from storage.layout import Layout
from tasks.pages import page_charts, page_galleries, page_rows
from tasks.pages.figures import Rules
from tasks.pages.page_changes import changes
from tasks.pages.page_charts import Bar, Chart, chart, words
from tasks.pages.page_labels import labels
from tasks.pages.page_proof import leaks, proof
from tasks.pages.thumbnails import Picture

CONTENTS = {
    "headline": "At a glance", "splits": "The photos", "changes": "Since the last version",
    "waterfall": "From found to kept", "rejected": "Turned away", "decisions": "Decided by hand", "labels": "Labels",
    "leakage": "Nothing leaks", "duplicates": "Duplicates", "extremes": "At the edges", "sizes": "Sizes and shapes",
    "edits": "Edited or not", "cameras": "Cameras", "rotation": "Which way up", "licences": "Licences",
    "uploads": "When uploaded", "owners": "Owners", "reasons": "All reasons",
}  # fmt: skip


def context(
    table: pa.Table,
    layout: Layout,
    rules: Rules,
    before: pa.Table | None = None,
    leakage: Mapping[str, Any] | None = None,
    label_account: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that the dataset half of a report shows, by the name that its template uses.

    ``before``: the same columns of the version before. ``leakage``, ``label_account``: what ``tasks.leakage`` and
    ``tasks.labels`` wrote.
    """  # fmt: skip
    with page_rows.database(table, before) as db:
        shown = counted(db, rules) | looked_at(db, layout) | {
            "leaks": leaks(db),
            "changes": None if before is None else changes(db, layout, snapshots.diff(before, table)),
            "labels": labels(db, layout, label_account),
            "leakage": proof(db, layout, leakage) if leakage else None,
        }  # fmt: skip
    return shown | {"contents": contents(shown)}


def contents(shown: Mapping[str, Any]) -> dict[str, str]:
    """The sections that have something to show, of those that a dataset may have nothing to do with."""
    is_empty = {name: not shown[name] for name in ("changes", "decisions", "leakage")}
    is_empty["labels"] = not (shown["labels"]["table"] or shown["labels"]["account"])
    named = {name: title for name, title in CONTENTS.items() if not is_empty.get(name)}
    return named | ({"leakage": "What leaks"} if shown["leakage"] and not shown["leakage"]["is_clean"] else {})


def counted(db: duckdb.DuckDBPyConnection, rules: Rules) -> dict[str, Any]:
    """The sections that are numbers and charts."""
    return {
        "headline": page_charts.headline(db), "waterfall": page_charts.waterfall(db),
        "size_charts": page_charts.size_charts(db, rules), "formats": page_charts.formats(db),
        "quality_charts": page_charts.quality_charts(db), "cameras": page_charts.cameras(db),
        "orientations": page_charts.orientations(db), "turns": page_charts.turns(db),
        "licences": page_charts.licences(db), "uploads": page_charts.uploads(db), "owners": page_charts.owners(db),
        "reasons": page_charts.reasons(db),
    }  # fmt: skip


def looked_at(db: duckdb.DuckDBPyConnection, layout: Layout) -> dict[str, Any]:
    """The sections that are pictures."""
    return {
        "sheets": page_galleries.sheets(db, layout), "rejected": page_galleries.rejected(db, layout),
        "duplicates": page_galleries.duplicates(db, layout), "extremes": page_galleries.extremes(db, layout),
        "edits": page_galleries.edits(db, layout), "decisions": page_galleries.decisions(db, layout),
    }  # fmt: skip


__all__ = ["CONTENTS", "Bar", "Chart", "Picture", "chart", "context", "words"]
