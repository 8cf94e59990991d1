"""What a report says of a dataset: counts, shares, charts and pictures, taken from the joined table.

Aggregates are SQL over the columns that they need; whole rows are read only for the photos that are shown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from storage.layout import Layout
from storage.records import SPLITS
from tasks import figures
from tasks.figures import Floats, Rules
from tasks.thumbnails import Picture, drawn, link, pictures

STAGES = ("download", "measure", "filter", "rotate", "dedup", "split")
READ = (
    "source", "photo_id", "owner_id", "owner_name", "licence", "licence_url", "uploaded_at", "bytes", "format", "width",
    "height", "exif_orientation", "long_px", "short_px", "aspect_milli", "exif_make", "exif_model", "edit_tier",
    "landscape_turns", "net_op", "duplicate_group", "duplicate_of", "group_id", "split", "verdict", "reason",
    "reason_stage",
)  # fmt: skip
SHEET_PHOTOS = 30  # a split
REASON_PHOTOS = 8  # a reason
REASONS_SHOWN = 16
GROUPS_SHOWN = 12
GROUP_PHOTOS = 4
TOP = 12  # rows of a ranking

CONTENTS = {
    "headline": "At a glance", "waterfall": "From found to kept", "splits": "The photos", "rejected": "Turned away",
    "duplicates": "Duplicates", "sizes": "Sizes and shapes", "cameras": "Cameras", "rotation": "Which way up",
    "licences": "Licences", "uploads": "When uploaded", "owners": "Owners", "reasons": "All reasons",
}  # fmt: skip
EXIF_MEANINGS = {
    1: "stands upright", 2: "mirrored", 3: "upside down", 4: "mirrored, upside down", 5: "mirrored, lies on its left",
    6: "turn 90° clockwise", 7: "mirrored, lies on its right", 8: "turn 90° counter-clockwise",
}  # fmt: skip
TURN_MEANINGS = {
    0: "not turned: landscape already", 1: "portrait, turned 90° counter-clockwise",
    3: "portrait, turned 90° clockwise",
}  # fmt: skip


class Bar(NamedTuple):
    """One row of a bar chart; ``start`` and ``share`` are fractions of the whole width."""

    label: str
    photos: int
    share: float
    start: float = 0.0
    kind: str = "kept"
    note: str = ""


class Chart(NamedTuple):
    """A figure for the page, and what it says in words."""

    svg: Markup
    title: str
    alt: str


def chart(svg: bytes, title: str, alt: str) -> Chart:
    """``svg`` (UTF-8, from our own figures) without its prologue, ready to stand in a page that names it by ``alt``."""
    text = svg.decode()
    body = text[text.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1)
    return Chart(Markup(body), title, alt)


def words(reason: str | None) -> str:
    """``too_small`` as a person reads it."""
    return (reason or "none given").replace("_", " ")


def database(table: pa.Table) -> duckdb.DuckDBPyConnection:
    """The columns that counts need, as the table ``photos``; upload times as UTC without a zone."""
    columns = table.select(READ)
    naive = columns["uploaded_at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).cast(pa.timestamp("us"))
    columns = columns.set_column(READ.index("uploaded_at"), "uploaded_at", naive)
    db = duckdb.connect()
    db.register("columns", columns)
    db.execute("create table photos as select * replace (coalesce(verdict, false) as verdict) from columns")
    db.unregister("columns")
    return db


def context(table: pa.Table, layout: Layout, rules: Rules) -> dict[str, Any]:
    """Everything that the dataset half of a report shows, by the name that its template uses."""
    with database(table) as db:
        return {
            "contents": CONTENTS,
            "headline": headline(db),
            "leaks": leaks(db),
            "waterfall": waterfall(db),
            "sheets": sheets(table, layout),
            "rejected": rejected(db, table, layout),
            "duplicates": duplicates(db, table, layout),
            "size_charts": size_charts(db, rules),
            "cameras": cameras(db),
            "orientations": orientations(db),
            "turns": turns(db),
            "licences": licences(db),
            "uploads": uploads(db),
            "owners": owners(db),
            "reasons": reasons(db),
        }


def headline(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The few numbers that a person wants first."""
    cursor = db.execute("""
        select count(*) as found, count(*) filter (verdict) as kept, coalesce(sum(bytes) filter (verdict), 0) as bytes,
               count(distinct nullif(owner_id, '')) filter (verdict) as owners,
               count(distinct licence) filter (verdict) as licences, count(distinct source) as sources,
               strftime(min(uploaded_at) filter (verdict), '%Y-%m-%d') as first_upload,
               strftime(max(uploaded_at) filter (verdict), '%Y-%m-%d') as last_upload
        from photos
    """)
    names = [column[0] for column in cursor.description]
    numbers: dict[str, Any] = dict(zip(names, cursor.fetchone() or (), strict=True))
    by_split = dict(db.execute("select split, count(*) from photos where verdict group by 1").fetchall())
    numbers["splits"] = {split: by_split.get(split, 0) for split in SPLITS}
    return numbers


def leaks(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many owners, and how many duplicate groups, lie in more than one split. Both should be 0."""
    counts = {}
    for name, column in (("owners", "owner_id"), ("duplicate groups", "duplicate_group")):
        rows = db.execute(f"""
            select count(*) from (select source, {column} from photos where verdict and coalesce({column}, '') <> ''
                                  group by all having count(distinct split) > 1)
        """).fetchone()
        counts[name] = int(rows[0]) if rows else 0
    return counts


def waterfall(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Found, what each stage takes away by reason, and what is left."""
    found, kept = db.execute("select count(*), count(*) filter (verdict) from photos").fetchone() or (0, 0)
    if not found:
        return []
    steps = [Bar("found", found, 1.0, kind="total")]
    left = found
    for stage, reason, count in reason_counts(db):
        left -= count
        steps.append(Bar(words(reason), count, count / found, left / found, "rejected", stage or ""))
    return [*steps, Bar("kept", kept, kept / found, kind="total")]


def reason_counts(db: duckdb.DuckDBPyConnection) -> list[tuple[str | None, str | None, int]]:
    """(stage, reason, photos) of the rejected, in the order of the stages, then the most frequent first."""
    order = " ".join(f"when '{stage}' then {place}" for place, stage in enumerate(STAGES))
    return db.execute(f"""
        select reason_stage, reason, count(*) as photos from photos where not verdict group by reason_stage, reason
        order by case reason_stage {order} else {len(STAGES)} end, photos desc, reason
    """).fetchall()


def reasons(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Each reason with its stage, number and share of all photos found."""
    found = (db.execute("select count(*) from photos").fetchone() or (0,))[0]
    return [
        {"stage": stage or "unknown", "reason": reason or "none given", "photos": count, "share": count / found}
        for stage, reason, count in reason_counts(db)
    ]


def sheets(table: pa.Table, layout: Layout) -> list[dict[str, Any]]:
    """A contact sheet for each split: its number of photos and some of them."""
    found = []
    for split in SPLITS:
        members = table.filter(pc.field("verdict") & (pc.field("split") == split))
        shown = pictures(layout, drawn(members, SHEET_PHOTOS))
        found.append({"split": split, "photos": members.num_rows, "pictures": shown})
    return found


def rejected(db: duckdb.DuckDBPyConnection, table: pa.Table, layout: Layout) -> list[dict[str, Any]]:
    """For each of the commonest reasons, some of the photos that it turned away."""
    shown = []
    for stage, reason, count in sorted(reason_counts(db), key=lambda each: -each[2])[:REASONS_SHOWN]:
        is_one = ~pc.coalesce(pc.field("verdict"), False)
        for name, value in (("reason_stage", stage), ("reason", reason)):
            is_one &= pc.field(name).is_null() if value is None else pc.field(name) == value
        rows = drawn(table.filter(is_one), REASON_PHOTOS)
        cards = pictures(layout, rows, [dimensions(row) for row in rows])
        is_seen = any(card.uri for card in cards)
        shown.append(
            {"stage": stage or "", "reason": words(reason), "photos": count, "pictures": cards, "is_seen": is_seen}
        )
    return shown


def dimensions(row: Mapping[str, Any]) -> str:
    """``1,620 × 1,080 px`` as stored, or nothing where it was never measured."""
    return f"{row['width']:,} × {row['height']:,} px" if row["width"] and row["height"] else ""


def duplicates(db: duckdb.DuckDBPyConnection, table: pa.Table, layout: Layout) -> dict[str, Any]:
    """The number of duplicate groups and of photos in them, and the largest groups with their pictures."""
    groups = db.execute("""
        select duplicate_group, count(*) as photos from photos where duplicate_group is not null
        group by 1 having count(*) > 1 order by photos desc, md5(duplicate_group)
    """).fetchall()
    shown = []
    for group, count in groups[:GROUPS_SHOWN]:
        rows = table.filter(pc.field("duplicate_group") == group).to_pylist()
        rows.sort(key=lambda row: (row["duplicate_of"] is not None, row["distance_bits"] or 0, row["photo_id"]))
        rows = rows[:GROUP_PHOTOS]
        shown.append({"photos": count, "pictures": pictures(layout, rows, [likeness(row) for row in rows])})
    return {"groups": len(groups), "photos": sum(count for _, count in groups), "shown": shown}


def likeness(row: Mapping[str, Any]) -> str:
    """How a member of a duplicate group relates to the one that stands for it."""
    fate = "kept" if row["verdict"] else words(row["reason"])
    if row["duplicate_of"] is None or row["distance_bits"] is None:
        return fate
    return f"{fate}, {row['distance_bits']:,} of 256 bits differ"


def size_charts(db: duckdb.DuckDBPyConnection, rules: Rules) -> list[Chart]:
    """Sides against each other and the histogram of aspects; none if no photo was measured."""
    query = """
        select long_px::double as long, short_px::double as short, aspect_milli / 1000.0 as aspect
        from photos where long_px > 0 and short_px > 0 and aspect_milli > 0 and verdict = $verdict
    """
    kept, gone = (db.execute(query, {"verdict": verdict}).fetchnumpy() for verdict in (True, False))
    if not len(kept["long"]) + len(gone["long"]):
        return []
    sides = [np.stack([part["long"], part["short"]], axis=1) for part in (kept, gone)]
    ratios = [part["aspect"].astype(np.float64) for part in (kept, gone)]
    middle = np.median(np.concatenate(sides), axis=0)
    return [
        chart(
            figures.sizes(sides[0], sides[1], rules), "Sizes",
            f"Scatter of long against short side in pixels of {len(sides[0]):,} kept and {len(sides[1]):,} rejected "
            f"photos; the median photo measures {middle[0]:,.0f} by {middle[1]:,.0f} px.",
        ),
        chart(
            figures.aspects(ratios[0], ratios[1]), "Aspects",
            f"Histogram of width to height as displayed; the median is {np.median(np.concatenate(ratios)):.2f}.",
        ),
    ]  # fmt: skip


def bars(rows: list[tuple[Any, ...]], kind: str = "kept") -> list[Bar]:
    """Rows of (label, count[, note]) as bars against the largest of them."""
    largest = max((row[1] for row in rows), default=0)
    return [Bar(str(row[0]), row[1], row[1] / largest, 0.0, kind, *map(str, row[2:])) for row in rows if largest]


def cameras(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The commonest cameras of kept photos by their EXIF make and model, and how many photos name none."""
    make, model = "trim(coalesce(exif_make, ''))", "trim(coalesce(exif_model, ''))"
    repeats = f"starts_with(lower({model}), lower(split_part({make}, ' ', 1)))"  # Canon, Canon EOS 70D
    named = f"case when {repeats} then {model} else trim({make} || ' ' || {model}) end"
    rows = db.execute(f"""
        select {named} as camera, count(*) as photos from photos where verdict and {named} <> ''
        group by 1 order by photos desc, camera
    """).fetchall()
    silent = db.execute(f"select count(*) from photos where verdict and {named} = ''").fetchone() or (0,)
    return {"bars": bars(rows[:TOP]), "models": len(rows), "photos": sum(row[1] for row in rows), "silent": silent[0]}


def orientations(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Photos by the orientation that their EXIF block notes, of all that were measured."""
    rows = db.execute("""
        select exif_orientation, count(*) from photos where exif_orientation is not null group by 1 order by 1
    """).fetchall()
    return bars([(EXIF_MEANINGS.get(value, "unknown"), count, f"EXIF {value}") for value, count in rows], "accent")


def turns(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Kept photos by how they were turned, and how many of them a reader must still turn when decoding."""
    rows = db.execute("""
        select landscape_turns, count(*), count(*) filter (net_op <> 1) from photos
        where verdict and landscape_turns is not null group by 1 order by 1
    """).fetchall()
    named = [
        (TURN_MEANINGS.get(turn, f"{turn} quarter turns"), count, f"{later:,} of them when decoded" if later else "")
        for turn, count, later in rows
    ]
    return bars(named, "accent")


def licences(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Licences of kept photos by split, the commonest first."""
    columns = ", ".join(f"count(*) filter (split = '{split}')" for split in SPLITS)
    rows = db.execute(f"""
        select coalesce(nullif(licence, ''), 'unstated') as name, min(licence_url), count(*) as photos, {columns}
        from photos where verdict group by 1 order by photos desc, name
    """).fetchall()
    return [
        {"licence": name, "url": link(url), "photos": photos, "splits": dict(zip(SPLITS, by_split, strict=True))}
        for name, url, photos, *by_split in rows
    ]


def uploads(db: duckdb.DuckDBPyConnection) -> Chart | None:
    """Photos by month of upload; None if no photo has a date."""
    rows = db.execute("""
        select date_trunc('month', uploaded_at)::timestamp as month,
               count(*) filter (verdict), count(*) filter (not verdict)
        from photos where uploaded_at is not null group by 1 order by 1
    """).fetchall()
    if not rows:
        return None
    months, kept, gone = zip(*rows, strict=True)
    busiest = max(rows, key=lambda row: row[1] + row[2])
    return chart(
        figures.uploads(months, kept, gone), "Uploads by month",
        f"Bars of photos by month of upload from {months[0]:%Y-%m} to {months[-1]:%Y-%m}; the busiest month is "
        f"{busiest[0]:%Y-%m} with {busiest[1] + busiest[2]:,} photos.",
    )  # fmt: skip


def owners(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """How evenly kept photos are spread over their owners, and who has the most."""
    rows = db.execute("""
        select coalesce(nullif(max(owner_name), ''), owner_id) as name, count(*) as photos, count(distinct group_id)
        from photos where verdict and coalesce(owner_id, '') <> '' group by source, owner_id order by photos desc, name
    """).fetchall()
    alone = db.execute("select count(*) from photos where verdict and coalesce(owner_id, '') = ''").fetchone() or (0,)
    if not rows:
        return {"bars": [], "owners": 0, "nameless": alone[0], "chart": None}
    counts: Floats = np.array([row[1] for row in rows], dtype=np.float64)
    gini, top_share = figures.gini(counts), counts[: max(1, len(counts) // 10)].sum() / counts.sum()
    return {
        "bars": bars([row[:2] for row in rows[:TOP]]), "owners": len(rows), "nameless": alone[0], "gini": gini,
        "top_share": top_share, "chart": chart(
            figures.lorenz(counts), "Concentration",
            f"Lorenz curve of photos over {len(counts):,} owners; Gini coefficient {gini:.2f}, and the most prolific "
            f"tenth of the owners has {100 * top_share:.0f} % of the photos.",
        ),
    }  # fmt: skip


__all__ = ["CONTENTS", "Bar", "Chart", "Picture", "chart", "context", "words"]
