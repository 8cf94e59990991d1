"""Ask sites whether photos are still there: which are due for a look, what was seen, and which removals it proves.

A photo counts as removed when its site says twice, a day apart, that it is gone (deleted or made private), or once
while the image host does not have its file either. Silence, errors and time-outs prove nothing. A look dated later than
now was dated by a clock that was ahead, and counts as not made. An owner who forbids downloads takes a photo out as if
the download had been told so.

Many photos that are proven gone at once may be a site, or an address, that is broken: a person has to confirm them.
Until then they are doubted, which is a check of its own: what was seen before proves nothing, and they stay suspects.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from pydantic import ConfigDict, Field, field_validator, model_validator

from storage import catalog, ledger, manifest, removals
from storage.layout import Layout, layout
from storage.records import SCHEMAS, ManifestRef, Record
from storage.removals import Blocked
from storage.settings import Settings, settings
from tasks import caching, sources
from tasks.credentials import with_keys
from tasks.download import NOT_DOWNLOADABLE, next_try_at
from tasks.errors import ConfigError, CredentialsRejected, PermanentSourceError, SourceChanged, TransientError
from tasks.sources import SourceName
from tasks.sources.base import Source
from tasks.sources.windows import revisit_after

LOG = logging.getLogger(__name__)

DAY = timedelta(days=1)
SECOND_LOOK = timedelta(hours=24)  # after which another "gone" is a proof
NO_FILE = frozenset({404, 410})
DOUBTED = "doubted"  # the state of a check that is no look
BELIEVED, BELIEVED_SHARE = 20, 0.05  # so many photos, or this share of what an audit looked at, may be gone at once
PATIENCE = 5  # failures in a row after which a site is left alone; photos that are no coincidence
CLOCKS_DIFFER = timedelta(
    minutes=5
)  # of workers: far less than SECOND_LOOK, or two looks at once would prove a removal


class Removal(Record):
    """What a person asks to remove: a photo, all photos of an owner, or all photos with these bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    source: SourceName | None = Field(None, description="The site of the photo or the owner.")
    photo_id: str | None = Field(None, description="The photo, as its site numbers it.")
    owner_id: str | None = Field(None, description="The owner, as the site numbers them.")
    sha256: str | None = Field(None, description="The digest of the file, as the published tables have it.")
    words: str = Field(min_length=1, description="Who asked for it, when, and in what words: kept as the proof.")

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, digest: str | None) -> str | None:
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ConfigError(f"the sha256 of a removal has 64 hexadecimal digits, unlike {digest!r}")
        return digest and digest.lower()

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        removals.check(self.source, self.photo_id, self.owner_id, self.sha256)
        for given in (self.photo_id, self.owner_id):
            if given and not could_be_id(self.source, given):
                raise ConfigError(f"a removal gives the id of a photo or an owner of {self.source}, unlike {given!r}")
        return self

    @property
    def subject(self) -> str:
        """What it stands for, in one line."""
        return " ".join(f"{name}={value}" for name, value in self.model_dump(exclude={"words"}).items() if value)

    def row(self, now: datetime) -> dict[str, Any]:
        """The row of "removals" that it becomes."""
        given = self.model_dump(exclude={"words"})
        return given | {"reason": "asked", "proof": self.words, "removed_at": now}


def could_be_id(source: str | None, text: str) -> bool:
    """Whether a photo or an owner of ``source`` may be called so. Those of a table may be URLs, and those of a folder
    are paths, which may have blanks; sites give ids without either.
    """
    return source == "table" or not ("://" in text or (source != "folder" and re.search(r"\s", text)))


def ledgers(where: Layout) -> list[str]:
    """The datasets that have been refreshed, or begun to be, and can be audited."""
    return sorted(folder.parent.name for folder in (where.root / "datasets").glob("*/ledger"))


def check_known(where: Layout, dataset: str) -> None:
    """Raise ConfigError unless ``dataset`` has a ledger."""
    if dataset not in (known := ledgers(where)):
        hint = f"choose one of {', '.join(known)}" if known else "refresh it first, none has been yet"
        raise ConfigError(f"there is no dataset {dataset!r} to audit: {hint}")


@ledger.beside_others
def matches(where: Layout, asked: Sequence[Removal], now: datetime) -> list[int]:
    """How many photos, of those that any dataset knows, each of ``asked`` stands for."""
    if not asked:
        return []
    known = [SCHEMAS["removals"].empty_table().select(removals.COLUMNS)]
    for name in ledgers(where):
        with catalog.connect(where, name) as db:
            known.append(db.sql("""
                select distinct source, photo_id, owner_id, sha256
                from listings full join attempts using (source, photo_id)
            """).to_arrow_table())  # fmt: skip
    photos = pa.concat_tables(known)
    numbers = []
    for each in asked:
        mine = photos.filter(Blocked.of(pa.Table.from_pylist([each.row(now)], SCHEMAS["removals"])).mask(photos))
        numbers.append(mine.group_by(["source", "photo_id"]).aggregate([]).num_rows)
    return numbers


_DUE = """
    with looks as (
        select source, photo_id, max(checked_at) as asked_at, max(checked_at) filter (state <> 'failed') as checked_at,
               arg_max(state, checked_at) filter (state in ('present', 'gone', 'doubted')) <> 'present' as is_suspect
        from checks group by all),
    listed as (select * replace (case when observed_at <= $latest then observed_at end as observed_at) from photos),
    known as (
        select p.source, p.photo_id, coalesce(is_suspect, false) as is_suspect, checked_at,
               coalesce(greatest(observed_at, asked_at), 'epoch') as asked_at,
               (epoch($now) - epoch(coalesce(greatest(observed_at, checked_at), 'epoch'))) / 86400 as unseen_days,
               (epoch($now) - epoch(coalesce(uploaded_at, observed_at, $now))) / 86400 as age_days
        from listed p left join looks l using (source, photo_id))
    select source, photo_id from known
    where $everything
       or case when is_suspect then checked_at <= $now - $second_look else unseen_days >= interval_days(age_days) end
    order by is_suspect desc, asked_at, source, photo_id
    limit $calls
"""


def made(checks: pa.Table, now: datetime) -> pa.Table:
    """``checks`` less those that a clock which was ahead has dated later than ``now``."""
    return checks.filter(pc.less_equal(checks["checked_at"], pa.scalar(now + CLOCKS_DIFFER)))


def due(photos: pa.Table, checks: pa.Table, now: datetime, calls: int | None, everything: bool = False) -> pa.Table:
    """Keys of the photos to look at, at most ``calls``: suspects first, then whoever was not seen for longest.

    photos: source, photo_id, uploaded_at, and observed_at, when a search last listed it. checks: schema "checks". With
    ``everything`` a photo needs not be due.
    """
    values = {
        "now": now, "latest": now + CLOCKS_DIFFER, "second_look": SECOND_LOOK, "everything": everything, "calls": calls,
    }  # fmt: skip
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.create_function("interval_days", lambda age: revisit_after(timedelta(age)) / DAY, ["DOUBLE"], "DOUBLE")
        db.register("photos", photos)
        db.register("checks", made(checks, now))
        return db.sql(_DUE, params=values).to_arrow_table()


def suspicions(checks: pa.Table) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The "gone" rows of each photo since it was last present, the oldest first; photos that have none are left out.
    Those before a doubt do not count, but leave the photo in."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(checks.to_pylist(), key=lambda row: row["checked_at"]):
        key = (row["source"], row["photo_id"])
        if row["state"] == "present":
            found.pop(key, None)
        elif row["state"] == "gone":
            found.setdefault(key, []).append(row)
        elif row["state"] == DOUBTED:
            found[key] = []
    return found


def is_proven(gone: list[dict[str, Any]]) -> bool:
    """Whether these looks, which all say "gone", prove a removal."""
    return any(row["file_status"] in NO_FILE for row in gone) or (
        bool(gone) and gone[-1]["checked_at"] - gone[0]["checked_at"] >= SECOND_LOOK
    )


def verdicts(checks: pa.Table, now: datetime, allow_jump: bool = False) -> tuple[list[dict[str, Any]], int]:
    """Rows of "removals" for the photos that ``checks`` prove to be gone, and how many more are suspected to be.
    ``allow_jump``: a person confirms those that were doubted."""
    if allow_jump:
        checks = checks.filter(pc.not_equal(checks["state"], DOUBTED))
    suspected = suspicions(made(checks, now))
    proven = [
        {
            "source": source, "photo_id": photo_id, "reason": "gone", "proof": "; ".join(map(testimony, gone)),
            "removed_at": now,
        }
        for (source, photo_id), gone in suspected.items() if is_proven(gone)
    ]  # fmt: skip
    return proven, len(suspected) - len(proven)


def most_believed(looks: int) -> int:
    """How many photos may newly be proven gone by an audit that got so many answers."""
    return max(BELIEVED, int(BELIEVED_SHARE * looks))


def doubts(checks: pa.Table, proven: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Rows of "checks" by which those that prove these removals do not count until a person confirms them."""
    last = pc.max(made(checks, now)["checked_at"]).as_py()
    said = {
        "checked_at": max(now, last + timedelta(microseconds=1)), "state": DOUBTED,
        "proof": f"{len(proven):,} photos were gone at once, which nobody has confirmed",
    }  # fmt: skip
    return [{"source": row["source"], "photo_id": row["photo_id"], **said} for row in proven]


def testimony(row: dict[str, Any]) -> str:
    """One look, as it stands in a proof."""
    said = f"{row['checked_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC: {row['proof']}"
    return f"{said}; its file: HTTP {row['file_status']}" if row["file_status"] else said


_FORBIDDEN = """
    with said as (
        select source, photo_id, max(checked_at) as checked_at, arg_max(is_download_allowed, checked_at) as is_allowed
        from checks where state = 'present' and checked_at <= $latest group by all)
    select source, photo_id, attempt + 1 as attempt, checked_at as fetched_at
    from fetched join said using (source, photo_id)
    where sha256 is not null and not is_allowed and (fetched_at < checked_at or fetched_at > $latest)
    order by source, photo_id
"""


@ledger.beside_others
def forbidden(where: Layout, dataset: str, now: datetime) -> list[dict[str, Any]]:
    """Rows of "attempts" for the photos that are held and whose owner, by the last look, has forbidden downloads since:
    what the download would have noted had it asked then.
    """
    with catalog.connect(where, dataset) as db:
        rows = db.sql(_FORBIDDEN, params={"latest": now + CLOCKS_DIFFER}).to_arrow_table().to_pylist()
    return [
        row | {
            "download_reason": NOT_DOWNLOADABLE,
            "next_try_at": next_try_at(NOT_DOWNLOADABLE, row["attempt"], row["fetched_at"]),
        }
        for row in rows
    ]  # fmt: skip


@ledger.beside_others
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

    Raises CredentialsRejected, TransientError if nothing was to be learnt at all, and SourceChanged if every answer was
    unreadable; one photo that the site refuses, or answers oddly, is a look that failed.
    """
    rows: list[dict[str, Any]] = []
    failures = 0
    unreadable: list[SourceChanged] = []
    for photo in photos:
        try:
            rows.append(look(source, photo, given))
            failures = 0
        except CredentialsRejected:
            raise
        except PermanentSourceError as error:
            rows.append(failed(photo, error))
            failures = 0
            unreadable += [error] if isinstance(error, SourceChanged) else []
        except TransientError as error:
            rows.append(failed(photo, error))
            failures += 1
            if failures == PATIENCE:
                if failures == len(rows):
                    raise
                break
    if PATIENCE <= len(unreadable) == len(rows):
        raise unreadable[0]
    return rows


def failed(photo: dict[str, Any], error: Exception) -> dict[str, Any]:
    """The "checks" row of a photo of which nothing was to be learnt."""
    return {
        "source": photo["source"], "photo_id": photo["photo_id"], "checked_at": datetime.now(UTC), "state": "failed",
        "proof": str(error),
    }  # fmt: skip


@task(**caching.stage("audit"))
def audit(source: str, photos: ManifestRef) -> ManifestRef:
    """One row of "checks" for each of ``photos`` (schema "wanted"). Raises as ``look_at_all``."""
    where = layout()
    rows = look_at_all(sources.named(source), manifest.read(where, photos).to_pylist(), with_keys(settings()))
    counts = Counter(row["state"] for row in rows)
    LOG.info("audit %s: %s", photos.sha256[:12], " ".join(f"{state}={count}" for state, count in counts.most_common()))
    return manifest.write_rows(where, "checks", rows)
