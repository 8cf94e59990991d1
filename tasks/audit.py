"""Ask sites whether photos are still there: which are due for a look, what was seen, and which removals it proves.

A photo counts as removed when its site says twice, a day apart, that it is gone (deleted or made private), or once
while the image host does not have its file either. Silence, errors and time-outs prove nothing.

Source: the ladder of ages is that of CC Catalog's re-ingestion (pull request 394).
"""

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import duckdb
import pyarrow as pa
from prefect import task
from pydantic import Field, model_validator

from storage import catalog, manifest, removals
from storage.layout import Layout, layout
from storage.records import SCHEMAS, ManifestRef, Record
from storage.settings import Settings, settings
from tasks import caching, sources
from tasks.credentials import with_keys
from tasks.errors import TransientError
from tasks.sources.base import Source

LOG = logging.getLogger(__name__)

LADDER = ((7, 1), (91, 7), (391, 15), (1111, 30), (3271, 90))  # up to so many days old: look every so many days
RARELY = 180  # days between looks at what is older
SECOND_LOOK = timedelta(hours=24)  # after which another "gone" is a proof
NO_FILE = frozenset({404, 410})
PATIENCE = 5  # failures in a row after which a site is left alone


class Removal(Record):
    """What a person asks to remove: a photo, all photos of an owner, or all photos with these bytes."""

    source: str | None = Field(None, description="The site of the photo or the owner.")
    photo_id: str | None = Field(None, description="The photo, as its site numbers it.")
    owner_id: str | None = Field(None, description="The owner, as the site numbers them.")
    sha256: str | None = Field(None, description="The digest of the file, as the published tables have it.")
    words: str = Field(min_length=1, description="Who asked for it, when, and in what words: kept as the proof.")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        removals.check(self.source, self.photo_id, self.owner_id, self.sha256)
        return self

    def row(self, now: datetime) -> dict[str, Any]:
        """The row of "removals" that it becomes."""
        given = self.model_dump(exclude={"words"})
        return given | {"reason": "asked", "proof": self.words, "removed_at": now}


def interval_days(age_days: float) -> int:
    """How many days may pass between two looks at a photo that was uploaded so long ago."""
    return next((every for oldest, every in LADDER if age_days <= oldest), RARELY)


_INTERVAL = f"case {' '.join(f'when age <= {oldest} then {every}' for oldest, every in LADDER)} else {RARELY} end"
_DUE = f"""
    with looks as (
        select source, photo_id, max(checked_at) as asked_at, max(checked_at) filter (state <> 'failed') as checked_at,
               arg_max(state, checked_at) filter (state in ('present', 'gone')) = 'gone' as is_suspect
        from checks group by all),
    known as (
        select p.source, p.photo_id, coalesce(is_suspect, false) as is_suspect, checked_at,
               greatest(observed_at, coalesce(asked_at, observed_at)) as asked_at,
               (epoch($now) - epoch(greatest(observed_at, coalesce(checked_at, observed_at)))) / 86400 as unseen_days,
               (epoch($now) - epoch(coalesce(uploaded_at, observed_at))) / 86400 as age
        from photos p left join looks l using (source, photo_id))
    select source, photo_id from known
    where $everything
       or case when is_suspect then checked_at <= $now - $second_look else unseen_days >= {_INTERVAL} end
    order by is_suspect desc, asked_at, source, photo_id
    limit $calls
"""


def due(photos: pa.Table, checks: pa.Table, now: datetime, calls: int | None, everything: bool = False) -> pa.Table:
    """Keys of the photos to look at, at most ``calls``: suspects first, then whoever was not seen for longest.

    photos: source, photo_id, uploaded_at, and observed_at, when a search last listed it. checks: schema "checks". With
    ``everything`` a photo needs not be due.
    """
    values = {"now": now, "second_look": SECOND_LOOK, "everything": everything, "calls": calls}
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.register("photos", photos)
        db.register("checks", checks)
        return db.sql(_DUE, params=values).to_arrow_table()


def suspicions(checks: pa.Table) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The "gone" rows of each photo since it was last present, the oldest first; photos that have none are left out."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(checks.to_pylist(), key=lambda row: row["checked_at"]):
        key = (row["source"], row["photo_id"])
        if row["state"] == "present":
            found.pop(key, None)
        elif row["state"] == "gone":
            found.setdefault(key, []).append(row)
    return found


def is_proven(gone: list[dict[str, Any]]) -> bool:
    """Whether these looks, which all say "gone", prove a removal."""
    return any(row["file_status"] in NO_FILE for row in gone) or (
        gone[-1]["checked_at"] - gone[0]["checked_at"] >= SECOND_LOOK
    )


def verdicts(checks: pa.Table, now: datetime) -> tuple[list[dict[str, Any]], int]:
    """Rows of "removals" for the photos that ``checks`` prove to be gone, and how many more are suspected to be."""
    suspected = suspicions(checks)
    proven = [
        {
            "source": source, "photo_id": photo_id, "reason": "gone", "proof": "; ".join(map(testimony, gone)),
            "removed_at": now,
        }
        for (source, photo_id), gone in suspected.items() if is_proven(gone)
    ]  # fmt: skip
    return proven, len(suspected) - len(proven)


def testimony(row: dict[str, Any]) -> str:
    """One look, as it stands in a proof."""
    said = f"{row['checked_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC: {row['proof']}"
    return f"{said}; its file: HTTP {row['file_status']}" if row["file_status"] else said


def photos_due(where: Layout, dataset: str, now: datetime, calls: int | None, everything: bool) -> pa.Table:
    """The photos of ``dataset`` to look at, with the address of their smallest file, schema "wanted"."""
    with catalog.connect(where, dataset) as db:
        photos = db.sql("select source, photo_id, uploaded_at, observed_at from photos").to_arrow_table()
        checks = db.sql("select * from checks").to_arrow_table()
        db.register("due", due(photos, checks, now, calls, everything))
        rows = db.sql("""
            select source, photo_id, owner_id,
                   list_filter([coalesce(fallbacks[-1], {'label': size_label, 'url': image_url})],
                               lambda smallest: smallest.url is not null) as renditions
            from photos semi join due using (source, photo_id)
        """).to_arrow_table()
    return pa.concat_tables([SCHEMAS["wanted"].empty_table(), rows], promote_options="permissive")


def look(source: Source, photo: dict[str, Any], given: Settings) -> dict[str, Any]:
    """The "checks" row of a photo (schema "wanted"): what its site says now, and its image host if that says "gone"."""
    row = {"source": photo["source"], "photo_id": photo["photo_id"], "checked_at": datetime.now(UTC)}
    seen = source.inspect(photo["photo_id"], given)
    row |= {
        "state": seen.state, "proof": seen.proof, "licence": seen.licence, "licence_url": seen.licence_url,
        "is_download_allowed": seen.is_download_allowed,
    }  # fmt: skip
    if seen.state == "gone" and photo["renditions"]:
        row["file_status"] = source.ask(given)(photo["renditions"][-1]["url"]).status or None
    return row


def look_at_all(source: Source, photos: Iterable[dict[str, Any]], given: Settings) -> list[dict[str, Any]]:
    """The "checks" rows of ``photos``. A site that fails again and again is left alone: what is missing stays due.

    Raises TransientError if nothing was to be learnt at all.
    """
    rows: list[dict[str, Any]] = []
    failures = 0
    for photo in photos:
        try:
            rows.append(look(source, photo, given))
            failures = 0
        except TransientError as error:
            failures += 1
            rows.append({
                "source": photo["source"], "photo_id": photo["photo_id"], "checked_at": datetime.now(UTC),
                "state": "failed", "proof": str(error),
            })  # fmt: skip
            if failures == PATIENCE:
                if failures == len(rows):
                    raise
                break
    return rows


@task(**caching.stage("audit"))
def audit(source: str, photos: ManifestRef) -> ManifestRef:
    """One row of "checks" for each of ``photos`` (schema "wanted"). Raises TransientError if no answer comes."""
    where = layout()
    rows = look_at_all(sources.named(source), manifest.read(where, photos).to_pylist(), with_keys(settings()))
    counts = Counter(row["state"] for row in rows)
    LOG.info("audit %s: %s", photos.sha256[:12], " ".join(f"{state}={count}" for state, count in counts.most_common()))
    return manifest.write_rows(where, "checks", rows)
