"""What a dataset's report says of its labels: photos of each, and how they came about.

The latter is the account that ``tasks.label_account`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from storage.layout import Layout
from storage.records import SPLITS
from tasks.pages.page_charts import Bar, bars, words
from tasks.pages.page_galleries import Sheet
from tasks.pages.page_rows import Row, number, rows
from tasks.pages.thumbnails import pictures

LABEL_PHOTOS, LABELS_SHOWN = 6, 24
TAGS_SHOWN, MERGED_SHOWN = 10, 60
STEPS = {
    "tags": "tags", "written": "words, written alike", "lemmas": "lemmas", "grouped": "after grouping",
    "labels": "labels in use",
}  # fmt: skip
LOSSES = {
    "empty": "without a word", "split": "another data set's split", "ignored": "ignored by the map",
    "unmapped": "not in the map", "rare": "too few photos", "relabelled": "a person said otherwise",
}  # fmt: skip
_OF = "case when len(labels) > 0 then labels when label <> '' then [label] else [] end"


def labels(db: duckdb.DuckDBPyConnection, layout: Layout, account: Mapping[str, Any] | None) -> dict[str, Any]:
    """Photos of each label by split, the commonest first, contact sheets of the first ones, and the ``account``."""
    db.execute(f"create temp table labelled as select *, unnest({_OF}) as of_label from photos where verdict")
    counted = ", ".join(f"count(*) filter (split = '{split}')" for split in SPLITS)
    counts = db.execute(f"""
        select of_label, count(*) as photos, {counted} from labelled group by 1 order by photos desc, 1
    """).fetchall()
    shown = examples(db, [row[0] for row in counts[:LABELS_SHOWN]])
    return {
        "sheets": [Sheet(row[0], row[1], pictures(layout, shown[row[0]])) for row in counts[:LABELS_SHOWN]],
        "table": [
            {"label": name, "photos": photos, "share": photos / counts[0][1], "splits": by}
            for name, photos, *by in counts
        ],
        "without": number(db, f"select count(*) from photos where verdict and coalesce(len({_OF}), 0) = 0"),
        "account": told(account) if account and account["steps"]["tags"] else None,
    }  # fmt: skip


def examples(db: duckdb.DuckDBPyConnection, names: list[str]) -> dict[str, list[Row]]:
    """Some photos of each label of ``names``."""
    found: dict[str, list[Row]] = {name: [] for name in names}
    query = f"""
        select * from labelled where list_contains($names, of_label)
        qualify row_number() over (partition by of_label order by drawn) <= {LABEL_PHOTOS} order by drawn
    """
    for row in rows(db, query, names=names or [""]):
        found[row["of_label"]].append(row)
    return found


def told(account: Mapping[str, Any]) -> dict[str, Any]:
    """``account`` as the page shows it: the steps from tags to labels, what merged, what was lost."""
    merged = [each for each in account["labels"] if each["tags_in_all"] > 1]
    return {
        "steps": bars([(name, account["steps"][step]) for step, name in STEPS.items()], "accent"),
        "pairs": account["pairs"],
        "merged": [{**each, "tags": each["tags"][:TAGS_SHOWN]} for each in merged[:MERGED_SHOWN]],
        "merged_in_all": len(merged),
        "lost": [{**each, "bar": bar, "tags": each["tags"][:TAGS_SHOWN]} for each, bar in lost(account)],
    }


def lost(account: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Bar]]:
    """Each loss with its bar, the largest first."""
    losses = sorted((each for each in account["lost"] if each["pairs"]), key=lambda each: -each["pairs"])
    named = [(LOSSES.get(each["loss"], words(each["loss"])), each["pairs"]) for each in losses]
    return list(zip(losses, bars(named, "rejected"), strict=True))
