"""What a dataset's report says of the honesty of its splits, from the proof that ``tasks.leakage`` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from storage.layout import Layout
from tasks.pages.page_galleries import Sheet, dimensions
from tasks.pages.page_rows import number, rows
from tasks.pages.thumbnails import pictures

PAIRS_SHOWN = 9
LABELS_LISTED = 200
NAMES = {
    "groups": "groups", "owners": "owners", "duplicate_groups": "groups of duplicates", "files": "files",
    "near_duplicates": "pairs of the same picture",
}  # fmt: skip
BONDS = {"owner": ("groups", "owners"), "duplicates": ("groups", "duplicate_groups", "files", "near_duplicates")}


class Share(NamedTuple):
    """What one split was to have of the photos, has, and could have had; fractions."""

    split: str
    photos: int
    target: float
    achieved: float
    best: float | None


def leaks(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many owners, and how many duplicate groups, lie in more than one split. Both should be 0."""
    return {
        name: number(db, f"""
            select count(*) from (select source, {column} from photos where verdict and coalesce({column}, '') <> ''
                                  group by all having count(distinct split) > 1)
        """)
        for name, column in (("owners", "owner_id"), ("groups of duplicates", "duplicate_group"))
    }  # fmt: skip


def proof(db: duckdb.DuckDBPyConnection, layout: Layout, found: Mapping[str, Any]) -> dict[str, Any]:
    """The proof as the page shows it; the labels farthest from their shares first."""
    asked = {what for bond in found["undivided"] for what in BONDS[bond]} | {"groups"}
    across = [(NAMES[what], count, what in asked) for what, count in found["across_splits"].items()]
    by_label = sorted(found["labels"], key=lambda each: (-each["off_points"], each["label"]))
    return {
        "is_clean": found["is_clean"],
        "across": across,
        "shares": shares_of(found["shares"]),
        "account": found["shares"],
        "labels": [{**each, "splits": shares_of(each)} for each in by_label[:LABELS_LISTED]],
        "more_labels": max(0, len(by_label) - LABELS_LISTED),
        "bits": found["max_distance_bits"],
        "wider_pairs": found["wider_pairs"],
        "bridges": found.get("bridges_splits", 0),
        "pairs": pairs(db, layout, found["examples"][:PAIRS_SHOWN]),
    }


def shares_of(account: Mapping[str, Any]) -> list[Share]:
    """The shares of an account by split, in its order."""
    return [
        Share(split, part["photos"], part["target"], part["achieved"], part.get("best"))
        for split, part in account["splits"].items()
    ]


def pairs(db: duckdb.DuckDBPyConnection, layout: Layout, examples: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """Each of ``examples`` as two photos beside each other, with their splits."""
    names = [each[side] for each in examples for side in ("first", "second")]
    found = rows(db, "select * from photos where list_contains($names, source || '/' || photo_id)", names=names or [""])
    by_name = {f"{row['source']}/{row['photo_id']}": row for row in found}
    sheets = []
    for each in examples:
        both = [by_name[each[side]] for side in ("first", "second") if each[side] in by_name]
        shown = pictures(layout, both, map(dimensions, both), [row["split"] or "" for row in both])
        sheets.append(Sheet("" if each["is_wider"] else "The same picture", len(both), shown))
    return sheets
