"""Charts and tables of a dataset's report: counts in SQL over the photos of ``page_rows.database``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import duckdb
import numpy as np
from markupsafe import Markup

from storage.records import SPLITS
from tasks.pages import figures
from tasks.pages.figures import Floats, Rules
from tasks.pages.page_rows import columns, number, only, rows
from tasks.pages.thumbnails import link

TOP = 12  # rows of a ranking
STAGES = ("download", "measure", "filter", "rotate", "dedup", "labels", "split")
EXIF_MEANINGS = {
    1: "stands upright", 2: "mirrored", 3: "upside down", 4: "mirrored, upside down", 5: "mirrored, lies on its left",
    6: "turn 90° clockwise", 7: "mirrored, lies on its right", 8: "turn 90° counter-clockwise",
}  # fmt: skip
TURN_MEANINGS = {
    0: "not turned: landscape already", 1: "portrait, turned 90° counter-clockwise",
    3: "portrait, turned 90° clockwise",
}  # fmt: skip
CELLS = (72, 48)  # of the chart of sizes: photos of about the same size are one bubble


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


def bars(counts: Iterable[tuple[Any, ...]], kind: str = "kept") -> list[Bar]:
    """Rows of (label, count[, note]) as bars against the largest of them."""
    counts = list(counts)
    largest = max((row[1] for row in counts), default=0)
    return [Bar(str(row[0]), row[1], row[1] / largest, 0.0, kind, *map(str, row[2:])) for row in counts if largest]


def headline(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The few numbers that a person wants first."""
    query = """
        select count(*) as found, count(*) filter (verdict) as kept,
               coalesce(sum(bytes) filter (verdict), 0)::bigint as bytes,
               count(distinct nullif(owner_id, '')) filter (verdict) as owners,
               count(distinct licence) filter (verdict) as licences,
               median(long_px * short_px / 1e6) filter (verdict) as megapixels,
               strftime(min(uploaded_at) filter (verdict), '%Y-%m-%d') as first_upload,
               strftime(max(uploaded_at) filter (verdict), '%Y-%m-%d') as last_upload
        from photos
    """
    [numbers] = rows(db, query)
    by_split = dict(db.execute("select split, count(*) from photos where verdict group by 1").fetchall())
    numbers["splits"] = {split: by_split.get(split, 0) for split in SPLITS}
    return numbers


def waterfall(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Found, what each stage takes away by reason, and what is left."""
    found, kept = only(db, "select count(*), count(*) filter (verdict) from photos")
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
    found = number(db, "select count(*) from photos")
    return [
        {"stage": stage or "unknown", "reason": reason or "none given", "photos": count, "share": count / found}
        for stage, reason, count in reason_counts(db)
    ]


def size_charts(db: duckdb.DuckDBPyConnection, rules: Rules) -> list[Chart]:
    """Sides against each other and the histogram of aspects; none if no photo was measured."""
    sides = sizes(db)
    if not len(sides[0]) + len(sides[1]):
        return []
    query = """
        select case when exif_orientation > 4 then height / width else width / height end as aspect
        from photos where width > 0 and height > 0 and verdict = $verdict
    """
    ratios = [columns(db, query, verdict=verdict)[0] for verdict in (True, False)]
    middle = only(db, "select median(long_px), median(short_px) from photos")
    kept, gone = (int(cells[:, 2].sum()) for cells in sides)
    return [
        chart(
            figures.sizes(sides[0], sides[1], rules), "Sizes",
            f"Long against short side in pixels of {kept:,} kept and {gone:,} rejected photos; the larger a dot, the "
            f"more photos of about that size. The median photo measures {middle[0]:,.0f} by {middle[1]:,.0f} px.",
        ),
        chart(
            figures.aspects(ratios[0], ratios[1]), "Aspects",
            f"Width to height as displayed; the median is {np.median(np.concatenate(ratios)):.2f}.",
        ),
    ]  # fmt: skip


def sizes(db: duckdb.DuckDBPyConnection) -> tuple[Floats, Floats]:
    """Kept and rejected photos as (N, 3) arrays of mean long side, mean short side, and how many are about as large."""
    query = f"""
        with measured as (select long_px, short_px, verdict from photos where long_px > 0 and short_px > 0),
             largest as (select max(long_px) as long, max(short_px) as short from measured)
        select avg(long_px)::double as long, avg(short_px)::double as short, count(*)::double as photos
        from measured, largest where verdict = $verdict
        group by floor({CELLS[0]} * long_px / long), floor({CELLS[1]} * short_px / short) order by photos desc, 1, 2
    """
    kept, gone = (np.stack(columns(db, query, verdict=verdict), axis=1) for verdict in (True, False))
    return kept, gone


def formats(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Kept photos by file format; JPEGs by whether they are progressive."""
    return bars(db.execute("""
        select format || case when format = 'JPEG' and is_progressive then ', progressive' else '' end as name,
               count(*),
               'median ' || case when median(bytes) < 1e6 then round(median(bytes) / 1e3)::int || ' kB'
                                 else round(median(bytes) / 1e6, 1) || ' MB' end
        from photos where verdict and format is not null group by 1 order by 2 desc, 1
    """).fetchall(), "accent")  # fmt: skip


def quality_charts(db: duckdb.DuckDBPyConnection) -> list[Chart]:
    """Histograms of brightness, of sharpness and of information; without those of what was measured of no photo."""
    drawn = []
    for column, title, says in (
        ("brightness", "Brightness", "Mean grey level, from 0, black, to 255, white"),
        ("sharpness", "Sharpness", "Variance of the Laplacian at a long side of 256 px, on a logarithmic axis"),
        ("entropy", "Information", "Entropy of the grey histogram: 0 bits is one even grey, 8 bits every grey alike"),
    ):
        query = f"select {column}::double as x from photos where {column} is not null and verdict = $verdict"
        kept, gone = (columns(db, query, verdict=verdict)[0] for verdict in (True, False))
        if len(kept) + len(gone):
            middle = (
                f"; the median kept photo has {np.median(kept):,.{0 if np.median(kept) > 99 else 1}f}"
                if len(kept)
                else ""
            )
            drawn.append(chart(figures.quality(column, kept, gone), title, f"{says}{middle}."))
    return drawn


def cameras(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The commonest cameras of kept photos by their EXIF make and model, and how many photos name none."""
    make, model = "trim(coalesce(exif_make, ''))", "trim(coalesce(exif_model, ''))"
    repeats = f"starts_with(lower({model}), lower(split_part({make}, ' ', 1)))"  # Canon, Canon EOS 70D
    named = f"case when {repeats} then {model} else trim({make} || ' ' || {model}) end"
    found = db.execute(f"""
        select {named} as camera, count(*) as photos from photos where verdict and {named} <> ''
        group by 1 order by photos desc, camera
    """).fetchall()
    silent = number(db, f"select count(*) from photos where verdict and {named} = ''")
    return {"bars": bars(found[:TOP]), "models": len(found), "photos": sum(row[1] for row in found), "silent": silent}


def orientations(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Photos by the orientation that their EXIF block notes, of all that were measured."""
    found = db.execute("""
        select exif_orientation, count(*) from photos where exif_orientation is not null group by 1 order by 1
    """).fetchall()
    return bars([(EXIF_MEANINGS.get(value, "unknown"), count, f"EXIF {value}") for value, count in found], "accent")


def turns(db: duckdb.DuckDBPyConnection) -> list[Bar]:
    """Kept photos by how they were turned, and how many of them a reader must still turn when decoding."""
    found = db.execute("""
        select landscape_turns, count(*), count(*) filter (net_op <> 1) from photos
        where verdict and landscape_turns is not null group by 1 order by 1
    """).fetchall()
    named = [
        (TURN_MEANINGS.get(turn, f"{turn} quarter turns"), count, f"{later:,} of them when decoded" if later else "")
        for turn, count, later in found
    ]
    return bars(named, "accent")


def licences(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Licences of kept photos by split, the commonest first."""
    counted = ", ".join(f"count(*) filter (split = '{split}')" for split in SPLITS)
    found = db.execute(f"""
        select coalesce(nullif(licence, ''), 'unstated') as name, min(licence_url), count(*) as photos, {counted}
        from photos where verdict group by 1 order by photos desc, name
    """).fetchall()
    return [
        {"licence": name, "url": link(url), "photos": photos, "splits": dict(zip(SPLITS, by_split, strict=True))}
        for name, url, photos, *by_split in found
    ]


def uploads(db: duckdb.DuckDBPyConnection) -> Chart | None:
    """Photos by month of upload; None if no photo has a date."""
    found = db.execute("""
        select date_trunc('month', uploaded_at)::timestamp as month,
               count(*) filter (verdict), count(*) filter (not verdict)
        from photos where uploaded_at is not null group by 1 order by 1
    """).fetchall()
    if not found:
        return None
    months, kept, gone = zip(*found, strict=True)
    busiest = max(found, key=lambda row: row[1] + row[2])
    most = busiest[1] + busiest[2]
    return chart(
        figures.uploads(months, kept, gone), "Uploads by month",
        f"Photos by month of upload from {months[0]:%Y-%m} to {months[-1]:%Y-%m}; the busiest month is "
        f"{busiest[0]:%Y-%m} with {most:,} {'photo' if most == 1 else 'photos'}.",
    )  # fmt: skip


def owners(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """How evenly kept photos are spread over their owners, and who has the most."""
    by_owner = "from photos where verdict and coalesce(owner_id, '') <> '' group by source, owner_id"
    [counts] = columns(db, f"select count(*) as photos {by_owner} order by 1 desc")
    nameless = number(db, "select count(*) from photos where verdict and coalesce(owner_id, '') = ''")
    if not len(counts):
        return {"bars": [], "owners": 0, "nameless": nameless, "chart": None}
    most = db.execute(f"""
        select coalesce(nullif(max(owner_name), ''), owner_id) as name, count(*) as photos, count(distinct split)
        {by_owner} order by photos desc, name, owner_id limit {TOP}
    """).fetchall()
    gini, top_share = figures.gini(counts), counts[: max(1, len(counts) // 10)].sum() / counts.sum()
    tenth = "tenth of the owners has" if len(counts) >= 10 else "owner has"
    return {
        "bars": bars([row[:2] for row in most]), "owners": len(counts), "nameless": nameless, "gini": gini,
        "top_share": top_share, "chart": chart(
            figures.lorenz(counts), "Concentration",
            f"Lorenz curve of photos over {len(counts):,} owners; Gini coefficient {gini:.2f}, and the most prolific "
            f"{tenth} {100 * top_share:.0f} % of the photos.",
        ) if len(counts) > 1 else None,
    }  # fmt: skip
