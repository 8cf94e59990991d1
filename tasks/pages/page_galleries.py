"""Photos to look at in a dataset's report: contact sheets, what was turned away, duplicates, extremes, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import duckdb

from storage.layout import Layout
from storage.records import SPLITS
from tasks.pages.page_charts import bars, reason_counts, words
from tasks.pages.page_rows import Row, first, first_of_each, number, only, rows
from tasks.pages.thumbnails import Picture, pictures

SHEET_PHOTOS = 30  # a split
REASON_PHOTOS, REASONS_SHOWN = 10, 16
GROUP_PHOTOS, GROUPS_SHOWN, FAR_SHOWN = 4, 9, 9
EXTREME_PHOTOS = 10
TIER_PHOTOS, EVIDENCE_SHOWN = 5, 12
DECIDED_PHOTOS = 10


class Sheet(NamedTuple):
    """Photos under one heading, out of ``photos`` of the kind."""

    title: str
    photos: int
    pictures: list[Picture]
    note: str = ""

    @property
    def is_seen(self) -> bool:
        """Whether at least one of its photos has a picture."""
        return any(each.uri for each in self.pictures)


class Extreme(NamedTuple):
    """One end of a scale; ``order``, ``where`` are SQL, ``note`` says where a photo lies on it."""

    title: str
    order: str
    note: Callable[[Row], str]
    where: str = "true"


def dimensions(row: Mapping[str, Any]) -> str:
    """``1,620 × 1,080 px`` as stored, or nothing where it was never measured."""
    return f"{row['width']:,} × {row['height']:,} px" if row["width"] and row["height"] else ""


WIDE = "case when exif_orientation > 4 then height / width else width / height end"
EXTREMES = (
    Extreme("Darkest", "brightness", lambda row: f"brightness {row['brightness']:.0f}", "brightness is not null"),
    Extreme("Brightest", "brightness desc", lambda row: f"brightness {row['brightness']:.0f}", "brightness > 0"),
    Extreme("Least sharp", "sharpness", lambda row: f"sharpness {row['sharpness']:,.0f}", "sharpness is not null"),
    Extreme("Least in them", "entropy", lambda row: f"{row['entropy']:.1f} bits", "entropy is not null"),
    Extreme("Fewest pixels", "long_px * short_px", dimensions, "long_px > 0"),
    Extreme("Widest", f"{WIDE} desc", dimensions, "width > 0 and height > 0"),
    Extreme("Tallest", WIDE, dimensions, "width > 0 and height > 0"),
)  # fmt: skip


def sheets(db: duckdb.DuckDBPyConnection, layout: Layout) -> list[Sheet]:
    """A contact sheet for each split: its number of photos and some of them."""
    shown = first_of_each(db, ["split"], SHEET_PHOTOS, "verdict")
    counts = dict(db.execute("select split, count(*) from photos where verdict group by 1").fetchall())
    return [Sheet(split, counts.get(split, 0), pictures(layout, shown.get((split,), []))) for split in SPLITS]


def rejected(db: duckdb.DuckDBPyConnection, layout: Layout) -> list[Sheet]:
    """For each of the commonest reasons, some of the photos that it turned away."""
    shown = first_of_each(db, ["reason_stage", "reason"], REASON_PHOTOS, "not verdict")
    commonest = sorted(reason_counts(db), key=lambda each: -each[2])[:REASONS_SHOWN]
    return [
        Sheet(words(reason), count, pictures(layout, found, map(dimensions, found)), stage or "")
        for stage, reason, count in commonest
        for found in [shown[stage, reason]]
    ]


def duplicates(db: duckdb.DuckDBPyConnection, layout: Layout) -> dict[str, Any]:
    """The number of duplicate groups, and those with most photos and with the least alike, each with its pictures."""
    db.execute("""
        create or replace temp table grouped as
        select duplicate_group, count(*) as photos, count(distinct sha256) as files,
               coalesce(max(distance_bits), 0) as farthest, false as is_shown
        from photos where duplicate_group is not null group by 1 having count(*) > 1
    """)
    counts = "select count(*), coalesce(sum(photos), 0)::bigint, count(*) filter (files = 1) from grouped"
    groups, photos, exact = only(db, counts)
    largest = group_sheets(db, layout, "true", "photos desc, md5(duplicate_group)", GROUPS_SHOWN)
    farthest = group_sheets(
        db, layout, "farthest > 0 and not is_shown", "farthest desc, md5(duplicate_group)", FAR_SHOWN
    )
    return {"groups": groups, "photos": photos, "exact": exact, "largest": largest, "farthest": farthest}


def group_sheets(db: duckdb.DuckDBPyConnection, layout: Layout, where: str, order: str, count: int) -> list[Sheet]:
    """The first ``count`` groups by ``order``: the photo that stands for each, then the others by distance."""
    db.execute(f"""
        create or replace temp table chosen as
        select duplicate_group, photos as members, row_number() over (order by {order}) as place
        from grouped where {where} order by place limit {count}
    """)
    db.execute("update grouped set is_shown = true where duplicate_group in (select duplicate_group from chosen)")
    query = f"""
        select photos.*, members, place,
               first_value(sha256) over (partition by place order by duplicate_of is not null, drawn) as stands
        from photos join chosen using (duplicate_group)
        qualify row_number() over (partition by place order by
            duplicate_of is not null, distance_bits desc nulls last, drawn) <= {GROUP_PHOTOS}
        order by place, duplicate_of is not null, distance_bits, drawn
    """
    places: dict[int, list[Row]] = {}
    for row in rows(db, query):
        places.setdefault(row["place"], []).append(row)
    sheets = []
    for group in places.values():
        marks = ["" if row["duplicate_of"] else "stands for all" for row in group]
        shown = pictures(layout, group, map(likeness, group), marks)
        sheets.append(Sheet(f"{group[0]['members']:,} photos", group[0]["members"], shown))
    return sheets


def likeness(row: Mapping[str, Any]) -> str:
    """How a member of a duplicate group relates to the one that stands for it."""
    fate = "kept" if row["verdict"] else words(row["reason"])
    if row["duplicate_of"] is None or row["distance_bits"] is None:
        return f"{dimensions(row)}, {fate}"
    same = "the same file" if row["sha256"] == row["stands"] else f"{row['distance_bits']:,} of 256 bits differ"
    return f"{same}, {dimensions(row)}" + ("" if fate.endswith("duplicate") else f", {fate}")


def extremes(db: duckdb.DuckDBPyConnection, layout: Layout) -> list[Sheet]:
    """The kept photos at the ends of what is measured, where a wrong rule shows first; none if all are shown anyway."""
    if number(db, "select count(distinct sha256) from photos where verdict") <= EXTREME_PHOTOS:
        return []
    found = []
    for title, order, note, where in EXTREMES:
        shown = first(db, EXTREME_PHOTOS, f"verdict and {where}", order)
        found.append(Sheet(title, len(shown), pictures(layout, shown, map(note, shown))))
    return [sheet for sheet in found if sheet.pictures]


def edits(db: duckdb.DuckDBPyConnection, layout: Layout) -> dict[str, Any]:
    """Tiers of editing of the measured photos, the commonest evidence of each, and photos with theirs."""
    tiers = db.execute("""
        select edit_tier, count(*) as photos, count(*) filter (verdict) from photos where edit_tier is not null
        group by 1 order by photos desc, 1
    """).fetchall()
    evidence = db.execute(f"""
        with signs as (select edit_tier, unnest(edit_evidence) as sign from photos)
        select sign, string_agg(distinct edit_tier, ', ' order by edit_tier), count(*) as photos from signs
        group by 1 order by photos desc, 1 limit {EVIDENCE_SHOWN}
    """).fetchall()
    shown = first_of_each(db, ["edit_tier"], TIER_PHOTOS, "edit_tier is not null and len(edit_evidence) > 0")
    return {
        "bars": bars([(words(tier), photos, f"{kept:,} kept") for tier, photos, kept in tiers], "accent"),
        "evidence": [{"sign": readable(sign), "tiers": words(of), "photos": photos} for sign, of, photos in evidence],
        "sheets": [
            Sheet(words(tier), photos, pictures(layout, found, map(evidence_of, found)))
            for tier, photos, _ in tiers
            if (found := shown.get((tier,)))
        ],
    }


def evidence_of(row: Mapping[str, Any]) -> str:
    """What the file of a photo tells of its making."""
    return "; ".join(map(readable, row["edit_evidence"]))


def readable(evidence: str) -> str:
    """``xmp_tool:GIMP 2.10`` as a person reads it."""
    kind, _, detail = evidence.partition(":")
    return f"{words(kind)}: {detail}" if detail else words(kind)


def decisions(db: duckdb.DuckDBPyConnection, layout: Layout) -> list[Sheet]:
    """What a person decided: photos kept against a rule, rejected, and given another label."""
    kinds = {
        "Kept by hand": "decision = 'keep'", "Rejected by hand": "decision = 'reject'", "Relabelled": "relabel <> ''",
    }  # fmt: skip
    found = []
    for title, where in kinds.items():
        shown = first(db, DECIDED_PHOTOS, where)
        notes = [f"now {row['relabel']}" if row["relabel"] else fate(row) for row in shown]
        photos = number(db, f"select count(*) from photos where {where}")
        found.append(Sheet(title, photos, pictures(layout, shown, notes)))
    return [sheet for sheet in found if sheet.photos]


def fate(row: Mapping[str, Any]) -> str:
    """What became of a photo, in two words."""
    return f"in {row['split']}" if row["verdict"] else words(row["reason"])
