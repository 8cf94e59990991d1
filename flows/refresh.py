"""Refresh a dataset: search, download, measure, filter, rotate, dedup, split, publish.

Run: ``prefect deployment run 'refresh-dataset/crops'``, or ``refresh_dataset(dataset={...})`` from Python.
"""

import logging
from collections import Counter
from typing import Any

from prefect import flow
from prefect.events import emit_event
from prefect.task_runners import ThreadPoolTaskRunner

from flows import acquire, artifacts
from flows.exclusive import only_one
from flows.progress import gather, one, say
from storage import catalog, manifest
from storage.layout import layout
from storage.records import ManifestRef, Plan, SnapshotRef
from storage.settings import settings
from storage.shards import shards
from tasks import sources
from tasks.credentials import with_keys
from tasks.dataset import Dataset
from tasks.dedup import dedup
from tasks.errors import EmptyResult
from tasks.filter import filter_photos
from tasks.measure import measure
from tasks.publish import join_photos, publish_snapshot
from tasks.report import report_dataset
from tasks.rotate import rotate
from tasks.split import split

SHARD_PHOTOS = 500  # at most, of one measure or rotate task: 2 to 30 s of work
WORKERS = 4
PUBLISHED = "darkroom.snapshot.published"  # the event; prefect.yaml triggers trainings by it
LOG = logging.getLogger(__name__)

RUNNER: Any = ThreadPoolTaskRunner(max_workers=WORKERS)  # Any: Prefect types its own runners as none of its runners


@flow(name="refresh-dataset", flow_run_name="refresh {dataset.name}", task_runner=RUNNER)
def refresh_dataset(
    dataset: Dataset, allow_jump: bool = False, announce: bool = True, plan_only: bool = False
) -> SnapshotRef | Plan:
    """The newest snapshot of ``dataset``, after adding what its queries find now.

    ``allow_jump`` publishes even if the counts jump; ``announce`` emits the event that can trigger a training.
    ``plan_only`` tells what the refresh would cost instead, for one call a query.
    """
    layout().check_writable()
    sources.named(dataset.source).check(with_keys(settings()))
    if plan_only:
        planned = acquire.plan(dataset)
        say(LOG, f"a refresh of {dataset.name} would take {artifacts.cost(planned)}")
        return planned
    with only_one(f"dataset-{dataset.name}"):
        acquire.find(dataset)
        acquire.fetch(dataset)
        joined = curate(dataset)
        report = one("report", report_dataset.submit(joined, dataset.name, dataset.filter.model_dump(mode="json")))
        snapshot = publish_snapshot(layout(), dataset.name, dataset.rules, joined, report, allow_jump)
        if snapshot.is_new and announce:  # first of all: the next run would find nothing new to announce
            emit_event(
                PUBLISHED,
                resource={"prefect.resource.id": f"darkroom.dataset.{dataset.name}"},
                payload={"snapshot": f"{dataset.name}@{snapshot.version}"},
            )
        LOG.info("%s@%d: %s", snapshot.dataset, snapshot.version, in_words(snapshot.counts))
        artifacts.show_snapshot(snapshot, manifest.read(layout(), joined))
    return snapshot


def in_words(counts: dict[str, int]) -> str:
    """``counts`` in one line of a log."""
    return " ".join(f"{part}={photos}" for part, photos in counts.items())


def curate(dataset: Dataset) -> ManifestRef:
    """One row with a verdict for every photo of the ledger."""
    where = layout()
    facts = manifest.write(where, "facts", catalog.facts(where, dataset.name, dataset.query_ids))
    owners = manifest.write(where, "owners", catalog.owners(where, dataset.name, dataset.query_ids))
    held = [
        (prefix, manifest.write(where, "held", rows))
        for prefix, rows in shards(catalog.held(where, dataset.name), SHARD_PHOTOS)
    ]
    if not held:
        reasons = Counter(manifest.read(where, facts, ["download_reason"])["download_reason"].to_pylist())
        why = ", ".join(f"{reason or 'not tried'} {photos:,}" for reason, photos in reasons.most_common())
        raise EmptyResult(f"not one photo of {dataset.name!r} could be downloaded: {why}")
    measured = gather(
        "measure", [measure.with_options(task_run_name=f"measure {prefix}").submit(ref) for prefix, ref in held]
    )
    rotating = [
        rotate.with_options(task_run_name=f"rotate {prefix}").submit(ref, dataset.rotate)
        for (prefix, _), ref in zip(held, measured, strict=True)
    ]
    filtered = one("filter", filter_photos.submit(measured, dataset.filter))
    check_kept(dataset, measured, filtered)
    rotated = gather("rotate", rotating)
    rotated = [turned_again(dataset, before, after) for before, after in zip(measured, rotated, strict=True)]
    deduped = one("dedup", dedup.submit(measured, filtered, owners, dataset.dedup))
    splits = one("split", split.submit(deduped, owners, dataset.split))
    return one("join", join_photos.submit(facts, measured, filtered, rotated, deduped, splits, dataset.locations))


def turned_again(dataset: Dataset, measured: ManifestRef, rotated: ManifestRef) -> ManifestRef:
    """``rotated``, after making the turned files anew that somebody deleted since."""
    where = layout()
    blobs = manifest.read(where, rotated, ["blob"]).append_column("format", manifest.read(where, measured)["format"])
    blobs = blobs.rename_columns(["sha256", "format"])
    if not catalog.lost(where, blobs.filter(blobs["sha256"].is_valid())).num_rows:
        return rotated
    return one("rotate again", rotate.with_options(refresh_cache=True).submit(measured, dataset.rotate))


def check_kept(dataset: Dataset, measured: list[ManifestRef], filtered: ManifestRef) -> None:
    """Raise EmptyResult if the filter keeps nothing."""
    good = manifest.read_all(layout(), measured, ["measure_reason"])["measure_reason"].null_count
    kept = manifest.read(layout(), filtered)["filter_reason"].null_count - (filtered.rows - good)
    if not kept:
        rules = ", ".join(f"{name} {value}" for name, value in dataset.filter)
        raise EmptyResult(f"the filter of {dataset.name!r} keeps none of {filtered.rows:,} photos ({rules}): relax it")
