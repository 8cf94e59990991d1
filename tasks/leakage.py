"""Prove that nothing which belongs together lies in two splits, and say how near the splits come to their shares.

The proof starts from what was measured, not from the groups that made the split: owners, bytes, and the search for the
same picture over the photos that are kept. It is a JSON object:

    is_clean          whether nothing that the rules keep together is divided
    undivided         what the rules keep together: owner, duplicates
    across_splits     how many groups, owners, duplicate_groups and files (equal bytes) lie in several splits, and how
                      many pairs of near_duplicates lie in two
    wider_pairs       pairs that are alike but not the same, such as neighbours in a burst, for a person to look at
    examples          some of the pairs: first, second (``source/photo_id``), is_wider
    shares            photos, groups, off_points, best_off_points, is_best_exact, largest_group_share, chi_square,
                      p_value, and by split: photos, target, achieved, best (see ``tasks.splitting.shares``)
    labels            the same of each label, with ``label`` and ``missing_from``, the splits that have no photo of it
    bridges_splits    photos that were rejected because they would have joined two splits

Source: Barz and Denzler, "Do we train on test data?", arXiv 1902.00423.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from prefect import task

from storage import manifest, streaming
from storage.layout import layout, write_bytes
from storage.records import SCHEMAS, SPLITS, FileRef, ManifestRef
from tasks import caching
from tasks.dedup import DedupRules, looking, taking_part
from tasks.duplicates.copies import Photos, linked, photos_of
from tasks.duplicates.registering import ALIKE, SAME, Bar
from tasks.split import SplitRules, shares
from tasks.splitting.grouping import numbered, places
from tasks.splitting.shares import account
from tasks.splitting.stratify import strata_of

LOG = logging.getLogger(__name__)
EXAMPLES = 20
REQUIRED = {"owner": ("owners",), "duplicates": ("duplicate_groups", "files", "near_duplicates")}
NAMES = {  # one, several
    "groups": ("group", "groups"), "owners": ("owner", "owners"), "files": ("file", "files"),
    "duplicate_groups": ("duplicate group", "duplicate groups"),
    "near_duplicates": ("pair of near-duplicates", "pairs of near-duplicates"),
}  # fmt: skip

_KEPT = """
    select source, photo_id, split, group_id, duplicate_group, sha256, coalesce(owner_id, '') as owner_id,
           list_distinct(coalesce(labels, [])) as labels
    from splits join deduped using (source, photo_id) join measured using (source, photo_id)
         left join owners using (source, photo_id) left join labels using (source, photo_id)
    where split is not null order by source, photo_id
"""
# What taking_part() of dedup asks for: these photos, none of them by hand and none for having been published.
_JUDGED = """
    create view judged as select source, photo_id, null as filter_reason from splits where split is not null
"""
_MEMBERS = {
    "groups": "group_id", "owners": "case when owner_id <> '' then source || '/' || owner_id end",
    "duplicate_groups": "duplicate_group", "files": "sha256",
}  # fmt: skip


def divided(kept: pa.Table) -> dict[str, int]:
    """How many groups, owners, duplicate groups and files lie in more than one split."""
    with duckdb.connect() as db:
        db.register("kept", kept)
        queries = [
            f"select count(*) from (select {member} as member from kept where member is not null "
            "group by member having count(distinct split) > 1)"
            for member in _MEMBERS.values()
        ]
        counts = [db.sql(query).fetchall()[0][0] for query in queries]
    return {what: int(number) for what, number in zip(_MEMBERS, counts, strict=True)}


def pairs_across(photos: Photos, splits: Sequence[str], max_distance_bits: int) -> dict[Bar, list[tuple[str, str]]]:
    """Photos as like each other as the bars SAME and ALIKE ask that lie in two splits, by name.

    ``splits``: of each of ``photos``. Not all pairs, but enough to join all photos that hang together: none only if
    there is no such pair.
    """
    found: dict[Bar, set[tuple[str, str]]] = {SAME: set(), ALIKE: set()}
    for bar, first, second in linked(photos, max_distance_bits, list(found)):
        if splits[first] != splits[second]:
            found[bar].add((photos.name(first), photos.name(second)))
    return {bar: sorted(pairs) for bar, pairs in found.items()}


def of_labels(kept: pa.Table, wanted: Sequence[float]) -> Iterator[dict[str, Any]]:
    """The account of each label, and the splits that want photos and have none of it."""
    names, photos, strata = strata_of(kept["labels"])
    sides, groups = places(kept["split"], pa.array(SPLITS)), numbered(kept["group_id"])[1]
    order = np.argsort(strata, kind="stable")
    parts = np.split(photos[order], np.searchsorted(strata[order], np.arange(1, len(names) + 1)))
    for name, members in zip(names, parts[1:], strict=True):
        found = account(sides[members], groups[members], wanted)
        empty = [split for split, part in found["splits"].items() if part["target"] and not part["photos"]]
        yield {"label": name, **found, "missing_from": empty}


def proof(kept: pa.Table, photos: Photos, dedup: DedupRules, rules: SplitRules) -> dict[str, Any]:
    """The proof without ``bridges_splits``. ``kept`` has one row for each of ``photos``, in their order.

    Its columns: source, photo_id, split, group_id, duplicate_group, sha256, owner_id (empty if unknown) and labels.
    """
    splits, wanted = kept["split"].to_pylist(), [float(share) for share in shares(rules)]
    pairs = pairs_across(photos, splits, dedup.max_distance_bits)
    near, wider = pairs[SAME], sorted(set(pairs[ALIKE]) - set(pairs[SAME]))
    across = divided(kept) | {"near_duplicates": len(near)}
    sides, groups = places(kept["split"], pa.array(SPLITS)), numbered(kept["group_id"])[1]
    return {
        "is_clean": not any(across[what] for what in required(rules)),
        "undivided": sorted(rules.group_by),
        "across_splits": across,
        "max_distance_bits": dedup.max_distance_bits,
        "wider_pairs": len(wider),
        "examples": [
            {"first": first, "second": second, "is_wider": is_wider}
            for found, is_wider in ((near, False), (wider, True))
            for first, second in found[:EXAMPLES]
        ],
        "shares": account(sides, groups, wanted),
        "labels": list(of_labels(kept, wanted)),
    }


def required(rules: SplitRules) -> list[str]:
    """What of ``across_splits`` must be zero under ``rules``."""
    return ["groups", *(what for bond in sorted(rules.group_by) for what in REQUIRED[bond])]


def is_clean(found: Mapping[str, Any]) -> bool:
    """Whether a proof shows that nothing leaks."""
    return bool(found["is_clean"])


def in_words(found: Mapping[str, Any]) -> str:
    """What of a proof lies in more than one split, as the part of a sentence."""
    leaks = [f"{number:,} {NAMES[what][number > 1]}" for what, number in found["across_splits"].items() if number]
    near = [each for each in found["examples"] if not each["is_wider"]]
    pair = f", such as {near[0]['first']} and {near[0]['second']}" if near else ""
    return f"{' and '.join(leaks)} in more than one split{pair}" if leaks else "nothing in more than one split"


@task(**caching.stage("leakage", name="audit-splits"))
def audit_splits(
    measured: list[ManifestRef], deduped: ManifestRef, owners: ManifestRef, labels: ManifestRef, splits: ManifestRef,
    dedup: DedupRules, rules: SplitRules,
) -> FileRef:  # fmt: skip
    """The proof about ``splits``, below ``stages/leakage``."""
    where = layout()
    with streaming.database(
        where, measured=measured, deduped=deduped, owners=owners, labels=labels, splits=splits
    ) as db:
        kept = db.sql(_KEPT).to_arrow_table()
        db.execute(_JUDGED)
        for none in ("decided", "given"):
            db.register(none, SCHEMAS[none].empty_table())
        table, thumbnails = taking_part(db)
    photos = photos_of(table, looking(where, table), thumbnails)
    found = proof(kept, photos, dedup, rules) | {"bridges_splits": splits.rows - kept.num_rows}
    page = json.dumps(found, indent=1, ensure_ascii=False).encode()
    file = where.root / "stages" / "leakage" / f"{hashlib.sha256(page).hexdigest()}.json"
    write_bytes(file, page)
    LOG.info("leakage: %s; photos=%d wider_pairs=%d", in_words(found), kept.num_rows, found["wider_pairs"])
    return manifest.file_ref(where, file)
