"""Give each photo to train, val or test, so that nothing that belongs together lies on two sides.

Photos of one owner, or of one duplicate group, form a group; a group's split is a hash of (salt, group), so it is the
same forever, whatever else arrives. A group is named by its smallest owner (``owner:source/owner_id``), without one by
its smallest photo (``photo:source/photo_id``). Only rows that dedup keeps join groups, one of each duplicate group,
so that two owners who post the same picture are not welded together.

Source: Barz and Denzler, "Do we train on test data?", arXiv 1902.00423 (why duplicates must share a side).
"""

import hashlib
import logging
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, Literal, Self

import duckdb
import pyarrow as pa
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import manifest
from storage.layout import layout
from storage.records import SPLITS, ManifestRef, Split
from tasks import caching
from tasks.errors import TooFewPhotos
from tasks.groups import components

LOG = logging.getLogger(__name__)
_TICKETS = 2**64


class SplitRules(BaseModel):
    """The shares of the splits, and what may not be divided between them."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Split")

    train: float = Field(0.75, ge=0, le=1, description="Share of the groups that are trained on.")
    val: float = Field(0.10, ge=0, le=1, description="Share of the groups that settings are chosen on.")
    test: float = Field(0.15, ge=0, le=1, description="Share of the groups that is looked at once, at the end.")
    group_by: tuple[Literal["owner", "duplicates"], ...] = Field(
        ("owner", "duplicates"), description="What is never divided between two splits."
    )
    mode: Literal["stable"] = Field("stable", description="stable: a group keeps its split, whatever else arrives.")
    salt: str = Field("darkroom", min_length=1, description="Another salt gives another split.")

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        """The shares cover everything once, and something is left to learn from."""
        total = sum(shares(self))
        if total != 1:
            raise ValueError(
                f"train ({self.train}), val ({self.val}) and test ({self.test}) make {float(total):g}: "
                "they must sum to 1"
            )
        if self.train == 0:
            raise ValueError("train is 0, so nothing would be left to train on: give it a share above 0")
        return self


def shares(rules: SplitRules) -> tuple[Fraction, ...]:
    """The shares of train, val and test, exactly as written."""
    return tuple(Fraction(str(share)) for share in (rules.train, rules.val, rules.test))


def split_of(group_id: str, rules: SplitRules) -> Split:
    """The split of a group: where its ticket, a 64-bit hash, falls among the cumulated shares."""
    digest = hashlib.sha256(f"{rules.salt}\0{group_id}".encode()).digest()
    ticket = int.from_bytes(digest[:8], "big")
    for name, end in zip(SPLITS, accumulate(shares(rules)), strict=True):
        if ticket < end * _TICKETS:
            return name
    raise AssertionError("the shares sum to 1")


def group_ids(rows: list[dict[str, Any]], rules: SplitRules) -> list[str]:
    """The group of each row (source, photo_id, owner_id, duplicate_group); an unknown owner joins nothing."""
    bonds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if "owner" in rules.group_by and row["owner_id"]:
            bonds["owner", f"{row['source']}/{row['owner_id']}"].append(index)
        if "duplicates" in rules.group_by and row["duplicate_group"]:
            bonds["duplicates", row["duplicate_group"]].append(index)
    roots = components(len(rows), (link for members in bonds.values() for link in pairwise(members)))
    names: dict[int, str] = {}
    for root, row in zip(roots, rows, strict=True):
        name = _name(row, rules)
        names[root] = min(names.get(root, name), name)
    return [names[root] for root in roots]


def _name(row: dict[str, Any], rules: SplitRules) -> str:
    """What a row would call its group; owners sort before photos."""
    if "owner" in rules.group_by and row["owner_id"]:
        return f"owner:{row['source']}/{row['owner_id']}"
    return f"photo:{row['source']}/{row['photo_id']}"


def split_rows(rows: list[dict[str, Any]], rules: SplitRules) -> list[dict[str, Any]]:
    """The split columns of each row; raises TooFewPhotos if there are fewer groups than splits that want some."""
    groups = group_ids(rows, rules)
    wanted = sum(share > 0 for share in shares(rules))
    if len(set(groups)) < wanted:
        raise TooFewPhotos(
            f"{len(rows)} photos in {len(set(groups))} groups (by {' and '.join(rules.group_by) or 'photo'}) "
            f"cannot fill {wanted} splits: search for more, loosen the filter, or set a share to 0"
        )
    split = {group: split_of(group, rules) for group in set(groups)}
    return [
        {"source": row["source"], "photo_id": row["photo_id"], "group_id": group, "split": split[group]}
        for row, group in zip(rows, groups, strict=True)
    ]


_KEPT = """
    SELECT source, photo_id, duplicate_group, coalesce(owner_id, '') AS owner_id
    FROM deduped LEFT JOIN owners USING (source, photo_id)
    WHERE dedup_reason IS NULL
    ORDER BY source, photo_id
"""


def kept_rows(deduped: pa.Table, owners: pa.Table) -> list[dict[str, Any]]:
    """The rows that dedup keeps, with their owner (empty if unknown)."""
    with duckdb.connect() as database:
        database.register("deduped", deduped)
        database.register("owners", owners)
        table: pa.Table = database.sql(_KEPT).to_arrow_table()
    return list(table.to_pylist())


@task(**caching.stage("split"))
def split(dedup: ManifestRef, owners: ManifestRef, rules: SplitRules) -> ManifestRef:
    """group_id and split of every photo that dedup keeps."""
    where = layout()
    rows = split_rows(kept_rows(manifest.read(where, dedup), manifest.read(where, owners)), rules)
    counts, sizes = Counter(row["split"] for row in rows), Counter(row["group_id"] for row in rows)
    LOG.info(
        "split: %s groups=%d largest=%.1f%%",
        " ".join(f"{name}={counts[name]}" for name in SPLITS), len(sizes), 100 * max(sizes.values()) / len(rows),
    )  # fmt: skip
    return manifest.write_rows(where, "split", rows)
