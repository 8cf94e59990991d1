"""Refresh a dataset: search, download, measure, filter, rotate, dedup, split, publish.

Run: ``prefect deployment run 'refresh-dataset/crops'``, or ``refresh_dataset(dataset={...})`` from Python.
"""

import logging
from typing import Any

from prefect import flow
from prefect.events import emit_event
from prefect.task_runners import ThreadPoolTaskRunner

from flows import acquire, artifacts
from flows.curate import Curated, curate
from flows.exclusive import only_one
from flows.progress import one, say
from storage import manifest, splits
from storage.layout import layout
from storage.records import Plan, SnapshotRef
from storage.settings import settings
from tasks import sources
from tasks.credentials import with_keys
from tasks.dataset import Dataset
from tasks.publish import READABLE, latest, newest_rows, publish_snapshot
from tasks.report import report_dataset

PUBLISHED = "darkroom.snapshot.published"  # the event; prefect.yaml triggers trainings by it
LOG = logging.getLogger(__name__)

# Any: Prefect types its own runners as none of its runners.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=acquire.WORKERS)


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
        curated = curate(dataset)
        snapshot = publish(dataset, curated, allow_jump)
        if snapshot.is_new and announce:  # first of all: the next run would find nothing new to announce
            emit_event(
                PUBLISHED,
                resource={"prefect.resource.id": f"darkroom.dataset.{dataset.name}"},
                payload={"snapshot": f"{dataset.name}@{snapshot.version}"},
            )
        splits.grant(layout(), dataset.name)
        LOG.info("%s@%d: %s", snapshot.dataset, snapshot.version, in_words(snapshot.counts))
        artifacts.show_snapshot(snapshot, manifest.read(layout(), curated.joined, READABLE))
    return snapshot


def publish(dataset: Dataset, curated: Curated, allow_jump: bool) -> SnapshotRef:
    """The next version of ``dataset``, or the newest if nothing differs from it."""
    where, name = layout(), dataset.name
    snapshot = latest(where, name, dataset.rules, curated.joined)
    if snapshot is None:
        before = newest_rows(where, name)
        rules = dataset.filter.model_dump(mode="json")
        reporting = report_dataset.submit(curated.joined, name, rules, before, curated.leakage, curated.label_account)
        pages = {
            "report.html": one("report", reporting), "leakage.json": curated.leakage,
            "labels.json": curated.label_account,
        }  # fmt: skip
        snapshot = publish_snapshot(
            where, name, dataset.rules, curated.joined, pages, allow_jump, split_from=curated.split_from
        )
    return snapshot


def in_words(counts: dict[str, int]) -> str:
    """``counts`` in one line of a log."""
    return " ".join(f"{part}={photos}" for part, photos in counts.items())
