"""Give each photo to train, val or test, so that nothing that belongs together lies on two sides.

Photos of one owner, or of one duplicate group, form a group. A group is named by its smallest owner
(``owner:source/owner_id``), without one by its smallest photo (``photo:source/photo_id``). Only rows that dedup and
labels keep join groups, one of each duplicate group, so that two owners who post the same picture are not welded
together.

What was published stays where it is: a group that holds such a photo, or a copy of one, takes its split. Another
group's split is a hash of (salt, group) if the mode is ``stable``, and if it is ``balanced`` the one that evens out the
labels. A photo that would join two splits is rejected as ``bridges_splits``; also one that is a copy of a published
picture, which it replaces, by an owner of another split, for it would carry the picture over.

Source: Barz and Denzler, "Do we train on test data?", arXiv 1902.00423 (why duplicates must share a side).
"""

from __future__ import annotations

import hashlib
import logging
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, Literal, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import manifest, streaming
from storage.layout import layout
from storage.records import SCHEMAS, SPLITS, ManifestRef
from tasks import caching
from tasks.errors import TooFewPhotos
from tasks.splitting import stratify
from tasks.splitting.grouping import NONE, Bonds, Indices, groups, memory, numbered, places, settle, votes
from tasks.splitting.shares import account

LOG = logging.getLogger(__name__)
_TICKETS = 2**64
_ROUNDING = Fraction(1, 10**6)  # that the sum of shares may be off by: 0.333333 three times means thirds
_WORTH_A_WARNING = 1.0  # percentage points that a split misses its share by


class SplitRules(BaseModel):
    """The shares of the splits, and what may not be divided between them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="Split")

    train: float = Field(0.75, ge=0, le=1, description="Share that is trained on.")
    val: float = Field(0.10, ge=0, le=1, description="Share that settings are chosen on.")
    test: float = Field(0.15, ge=0, le=1, description="Share that is looked at once, at the end.")
    group_by: tuple[Literal["owner", "duplicates"], ...] = Field(
        ("owner", "duplicates"), description="What is never divided between two splits."
    )
    mode: Literal["stable", "balanced"] = Field(
        "stable",
        description="stable: by a hash of each group; balanced: even shares of all photos and of each label's.",
    )
    salt: str = Field("darkroom", min_length=1, description="Another salt gives another split.")

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        """The shares cover everything once, and something is left to learn from."""
        off = sum(_written(self), Fraction(-1))
        if abs(off) > _ROUNDING:
            raise ValueError(
                f"train ({self.train}), val ({self.val}) and test ({self.test}) make {float(1 + off):g}: "
                f"they must sum to 1, and are {float(abs(off)):g} {'above' if off > 0 else 'below'}"
            )
        if self.train == 0:
            raise ValueError("train is 0, so nothing would be left to train on: give it a share above 0")
        return self


def _written(rules: SplitRules) -> tuple[Fraction, ...]:
    return tuple(Fraction(str(share)) for share in (rules.train, rules.val, rules.test))


def shares(rules: SplitRules) -> tuple[Fraction, ...]:
    """The shares of train, val and test, exactly as written; where rounding put their sum off, they are scaled to 1."""
    written = _written(rules)
    return tuple(share / sum(written) for share in written)


def ticket(group_id: str, salt: str) -> int:
    """64 bits that stand for a group, for ever."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group_id}".encode()).digest()[:8], "big")


def drawn(tickets: Iterable[int], rules: SplitRules) -> list[int]:
    """The split of each ticket, by its place in SPLITS: where it falls among the cumulated shares."""
    ends = [math.ceil(end * _TICKETS) for end in accumulate(shares(rules))]
    return [bisect_right(ends, ticket) for ticket in tickets]


def evened_out(
    new: Indices, tickets: Sequence[int], sides: Indices, of_photos: Indices, labels: pa.ChunkedArray, rules: SplitRules
) -> Indices:
    """The split of each of the ``new`` groups that evens out the labels, beside what has its side already."""
    wanted = np.array([float(share) for share in shares(rules)])
    used = np.flatnonzero(wanted)
    names, photos, strata = stratify.strata_of(labels)
    size, found = len(names) + 1, of_photos[photos]
    held = votes(strata, np.append(sides, NONE)[found], size)[:, used].astype(np.float64)
    places_of_new = np.full(len(sides) + 1, NONE)  # one more, for photos without a group
    places_of_new[new] = np.arange(len(new))
    group = places_of_new[found]
    counts = stratify.count(group[group != NONE], strata[group != NONE], len(new), size)
    return used[stratify.balance(counts, held, wanted[used], np.array(tickets, dtype=np.uint64))]


# The views are the stages' outputs, as published columns; ``given`` is what was published before, under these rules.
_KEPT = """
    select source, photo_id, split as given,
           case when $by_owner and owner_id <> '' then 'owner:' || source || '/' || owner_id
                else 'photo:' || source || '/' || photo_id end as name,
           case when $by_duplicates then duplicate_group end as duplicate_group,
           case when len(labels) > 1 then list_distinct(labels) else coalesce(labels, []) end as labels
    from deduped left join owners using (source, photo_id) left join labels using (source, photo_id)
         left join given using (source, photo_id)
    where dedup_reason is null and labels_reason is null
    order by source, photo_id
"""
# Published photos that take part no longer still hold the place of their owner and of their picture.
_NAME_MEMORY = """
    with gone as (select * from given anti join kept using (source, photo_id)),
    named as (
        select source, photo_id, group_id as member, split from gone
        union select source, photo_id, 'owner:' || source || '/' || owner_id, split
        from gone join owners using (source, photo_id) where $by_owner and owner_id <> '')
    select member, split, count(*) as photos from named group by all
"""
_DUPLICATE_MEMORY = """
    select duplicate_group as member, split, count(*) as photos
    from given anti join kept using (source, photo_id) join deduped using (source, photo_id)
    where duplicate_group is not null group by all
"""


def split_photos(db: duckdb.DuckDBPyConnection, rules: SplitRules) -> pa.Table:
    """Schema "split" for every photo that dedup and labels keep; raises TooFewPhotos.

    ``db`` has the views deduped, owners, labels and given.
    """
    by = {f"by_{bond}": wanted in rules.group_by for bond, wanted in (("owner", "owner"), ("duplicates", "duplicates"))}
    kept = db.sql(_KEPT, params=by).to_arrow_table()
    db.register("kept", kept)
    names, name_numbers = numbered(kept["name"])
    duplicate_groups, duplicates = numbered(kept["duplicate_group"])
    bonds = Bonds(name_numbers, duplicates, places(kept["given"], pa.array(SPLITS)))
    name_memory = memory(db.sql(_NAME_MEMORY, params={"by_owner": by["by_owner"]}).to_arrow_table(), names)
    duplicate_memory = memory(db.sql(_DUPLICATE_MEMORY).to_arrow_table(), duplicate_groups)
    sides, is_rejected = settle(bonds, name_memory, duplicate_memory)
    of_photos = groups(bonds, is_rejected)
    present = np.flatnonzero(np.bincount(of_photos[~is_rejected], minlength=len(names)))
    _check_enough(kept.num_rows, len(present), rules)
    new = present[sides[present] == NONE]
    tickets = [ticket(name, rules.salt) for name in names.take(pa.array(new)).to_pylist()]
    if rules.mode == "stable":
        sides[new] = drawn(tickets, rules)
    else:
        sides[new] = evened_out(new, tickets, sides, of_photos, kept["labels"], rules)
    group_ids = names.take(pa.array(of_photos, mask=is_rejected))
    splits = pa.array(SPLITS).take(pa.array(sides[of_photos], mask=is_rejected))
    reasons = pa.array(["bridges_splits"]).take(pa.array(np.zeros_like(of_photos), mask=~is_rejected))
    columns = [kept["source"], kept["photo_id"], group_ids, splits, reasons]
    return pa.table(columns, schema=SCHEMAS["split"])


def _check_enough(photos: int, found: int, rules: SplitRules) -> None:
    """Raise TooFewPhotos if fewer groups are ``found`` than splits want some."""
    wanted = sum(share > 0 for share in shares(rules))
    if found < wanted:
        raise TooFewPhotos(
            f"{photos} photos in {found} groups (by {' and '.join(rules.group_by) or 'photo'}) "
            f"cannot fill {wanted} splits: search for more, loosen the filter, or set a share to 0"
        )


def report(table: pa.Table, rules: SplitRules) -> None:
    """Log what ``table`` (schema "split") gives to each split, and warn where a split misses its share."""
    kept = table.filter(pc.is_valid(table["split"]))
    names, numbers = numbered(kept["group_id"])
    found = account(places(kept["split"], pa.array(SPLITS)), numbers, [float(share) for share in shares(rules)])
    LOG.info(
        "split: %s groups=%d largest=%.1f%% bridges_splits=%d",
        " ".join(f"{name}={part['photos']}" for name, part in found["splits"].items()),
        len(names), 100 * found["largest_group_share"], table.num_rows - kept.num_rows,
    )  # fmt: skip
    if found["off_points"] > _WORTH_A_WARNING:
        LOG.warning("%s", missed(found))


def missed(found: dict[str, Any]) -> str:
    """One sentence on how far the splits are from their shares, and on the best that these groups allow."""
    parts = ", ".join(
        f"{name} has {100 * part['achieved']:.1f} % of {100 * part['target']:.1f} %"
        for name, part in found["splits"].items()
    )
    groups, best = f"{found['groups']:,} undivided groups", f"{found['best_off_points']:.1f}"
    largest = f"the largest with {100 * found['largest_group_share']:.1f} % of the photos"
    known = f"{best} is the best that {groups} allow, {largest}"
    if not found["is_best_exact"]:
        known = f"no split of {groups}, {largest}, can come nearer than {best}"
    return f"{parts}: {found['off_points']:.1f} points off where {known}"


@task(**caching.stage("split"))
def split(
    deduped: ManifestRef, owners: ManifestRef, labels: ManifestRef, given: ManifestRef, rules: SplitRules
) -> ManifestRef:
    """group_id and split of every photo that dedup and labels keep, or why it has none."""
    where = layout()
    with streaming.database(where, deduped=deduped, owners=owners, labels=labels, given=given) as db:
        table = split_photos(db, rules)
    report(table, rules)
    return manifest.write(where, "split", table)
