"""From the photos that a dataset holds to one row with a verdict for each, and the proof that the splits do not leak.

measure -> filter -> dedup -> labels -> split -> audit of the split
        -> rotate -----------------------------> join
"""

from collections import Counter
from typing import NamedTuple

import pyarrow.compute as pc

from flows.progress import gather, one
from storage import catalog, manifest, overrides, splits
from storage.layout import layout
from storage.records import FileRef, ManifestRef
from storage.shards import shards
from tasks import caching
from tasks.dataset import Dataset
from tasks.dedup import dedup
from tasks.errors import EmptyResult
from tasks.filter import filter_photos
from tasks.join import join_photos
from tasks.label_account import account_labels
from tasks.labels import label_photos
from tasks.leakage import audit_splits
from tasks.measure import measure
from tasks.publish import split_before
from tasks.rotate import rotate
from tasks.split import split

GIVEN_TO = ("dedup", "labels", "split")  # what comes out of these hangs on what was published before
_CODE = {name: caching.code_as_imported(caching.CODE[name]) for name in GIVEN_TO}
SHARD_PHOTOS = 500  # at most, of one measure or rotate task: 2 to 30 s of work


class Curated(NamedTuple):
    """What a snapshot is made of. ``split_from``: what the splits were made from, as snapshot.json notes it."""

    joined: ManifestRef
    leakage: FileRef
    label_account: FileRef
    split_from: dict[str, object]


def curate(dataset: Dataset) -> Curated:
    """One row with a verdict for every photo of the ledger, and the proofs that go with them."""
    where, name = layout(), dataset.name
    facts = manifest.write(where, "facts", catalog.facts(where, name, dataset.query_ids))
    owners = manifest.write(where, "owners", catalog.owners(where, name, dataset.query_ids))
    tagged = manifest.write(where, "tagged", catalog.tagged(where, name, dataset.query_ids))
    decided = manifest.write(where, "decided", overrides.decided(where, name))
    held = held_shards(dataset, facts)
    measured = gather(
        "measure", [measure.with_options(task_run_name=f"measure {prefix}").submit(ref) for prefix, ref in held]
    )
    rotating = [
        rotate.with_options(task_run_name=f"rotate {prefix}").submit(ref, dataset.rotate)
        for (prefix, _), ref in zip(held, measured, strict=True)
    ]
    filtered = one("filter", filter_photos.submit(measured, decided, dataset.filter))
    check_kept(dataset, measured, filtered)
    rotated = gather("rotate", rotating)
    rotated = [turned_again(dataset, before, after) for before, after in zip(measured, rotated, strict=True)]
    split_from = made_from(measured, filtered=filtered, owners=owners, decided=decided, tagged=tagged)
    given = given_before(dataset, split_from)
    deduped = one("dedup", dedup.submit(measured, filtered, owners, decided, given, dataset.dedup))
    labels = one("labels", label_photos.submit(tagged, deduped, decided, dataset.labels))
    account = account_labels.submit(tagged, deduped, decided, labels, dataset.labels)
    divided = one("split", split.submit(deduped, owners, labels, given, dataset.split))
    auditing = audit_splits.submit(measured, deduped, owners, labels, divided, dataset.dedup, dataset.split)
    joining = join_photos.submit(
        facts, measured, filtered, rotated, deduped, labels, divided, decided, dataset.locations
    )
    return Curated(
        joined=one("join", joining), leakage=one("audit of splits", auditing), label_account=account.result(),
        split_from=split_from | {"given": given.model_dump()},
    )  # fmt: skip


def held_shards(dataset: Dataset, facts: ManifestRef) -> list[tuple[str, ManifestRef]]:
    """The photos whose bytes are kept, by shard. Raises EmptyResult, which says why, if there are none."""
    where = layout()
    held = [
        (prefix, manifest.write(where, "held", rows))
        for prefix, rows in shards(catalog.held(where, dataset.name), SHARD_PHOTOS)
    ]
    if not held:
        reasons = Counter(manifest.read(where, facts, ["download_reason"])["download_reason"].to_pylist())
        why = ", ".join(f"{reason or 'not tried'} {photos:,}" for reason, photos in reasons.most_common())
        raise EmptyResult(f"not one photo of {dataset.name!r} could be downloaded: {why}")
    return held


def made_from(measured: list[ManifestRef], **refs: ManifestRef) -> dict[str, object]:
    """What duplicates, labels and splits are made from, beside rules and what was published: digests of rows, and of
    the code.
    """
    rows = {name: ref.sha256 for name, ref in refs.items()}
    return {"measured": [ref.sha256 for ref in measured], **rows, "code": _CODE}


def given_before(dataset: Dataset, split_from: dict[str, object]) -> ManifestRef:
    """The splits in which photos were published before, under the rules of ``dataset``.

    If the newest version was made from the same (``made_from``) by the same rules, then what it was given: the same
    duplicates and splits come out, from the cache.
    """
    where, rules = layout(), dataset.split.model_dump(mode="json")
    before = split_before(where, dataset.name, GIVEN_TO)
    given = ManifestRef.model_validate(before.pop("given")) if before else None
    now = split_from | {"rules": {name: dataset.rules.get(name) for name in GIVEN_TO}}
    if before == now and given is not None and manifest.intact(where, given):
        return given
    return manifest.write(where, "given", splits.given(where, dataset.name, splits.rules_digest(rules)))


def turned_again(dataset: Dataset, measured: ManifestRef, rotated: ManifestRef) -> ManifestRef:
    """``rotated``, after making the turned files anew that somebody deleted since."""
    where = layout()
    photos = manifest.read(where, measured, ["sha256", "format"])
    blobs = photos.set_column(0, "sha256", manifest.read(where, rotated, ["blob"])["blob"])
    # The others were looked for before the download.
    is_turned = pc.fill_null(pc.not_equal(blobs["sha256"], photos["sha256"]), False)
    if not catalog.lost(where, blobs.filter(is_turned)).num_rows:
        return rotated
    return one("rotate again", rotate.with_options(refresh_cache=True).submit(measured, dataset.rotate))


def check_kept(dataset: Dataset, measured: list[ManifestRef], filtered: ManifestRef) -> None:
    """Raise EmptyResult if the filter keeps nothing."""
    good = manifest.read_all(layout(), measured, ["measure_reason"])["measure_reason"].null_count
    kept = manifest.read(layout(), filtered, ["filter_reason"])["filter_reason"].null_count - (filtered.rows - good)
    if not kept:
        rules = ", ".join(f"{name} {value}" for name, value in dataset.filter)
        raise EmptyResult(f"the filter of {dataset.name!r} keeps none of {filtered.rows:,} photos ({rules}): relax it")
