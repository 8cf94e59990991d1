"""What is done with published versions: compare two, publish an old one anew, delete what none refers to.

Run: ``prefect deployment run 'diff-snapshots/any' --param old=crops@1 --param new=crops@2``, or the functions below.
"""

import logging
import socket
import time
from contextlib import ExitStack
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one, say
from flows.refresh import PUBLISHED
from storage import catalog, garbage, journal, manifest, snapshots
from storage.layout import Layout, layout
from storage.records import ManifestRef, SnapshotRef
from storage.snapshots import DiffSummary
from tasks.publish import READABLE, newest_rows, publish_snapshot
from tasks.purge import datasets_of
from tasks.report import report_dataset
from tasks.rollback import proofs, rejected_since, restored, unchanged

DAY_S = 86400.0
LOG = logging.getLogger(__name__)
RUNNER: Any = ThreadPoolTaskRunner(max_workers=1)  # Any: Prefect types its own runners as none of its runners
Days = Annotated[float, Field(ge=0, description="What was made or used in the last so many days is left alone.")]


@flow(name="diff-snapshots", flow_run_name="{old} against {new}")
def diff_snapshots(old: str, new: str) -> DiffSummary:
    """How the snapshot ``new`` (``crops``, ``crops@2`` or ``crops@2026-11-01``) differs from ``old``, in photos."""
    versions = [snapshots.published_version(layout(), *catalog.resolve(layout(), each)) for each in (old, new)]
    summary = snapshots.compare(*versions).summary
    create_table_artifact(
        difference(summary), key=f"dataset-{new.partition('@')[0]}-diff", description=f"{new} against {old}"
    )
    return summary


def difference(summary: DiffSummary) -> list[dict[str, Any]]:
    """The rows of a table about ``summary``."""
    counts = {name.replace("_", " "): number for name, number in summary if isinstance(number, int)}
    counts |= {f"changed: {column}": number for column, number in summary.by_column.items()}
    counts |= {f"newly rejected: {reason}": number for reason, number in summary.reasons.items()}
    return [{"what": what, "photos": number} for what, number in counts.items()]


@flow(name="roll-back", flow_run_name="{dataset} back to {version}", task_runner=RUNNER)
def roll_back(dataset: str, version: int, announce: bool = True) -> SnapshotRef:
    """Publish version ``version`` of ``dataset`` anew, as its next one; photos that were removed since stay away,
    and photos that were rejected by hand since are rejected.

    Nothing is deleted: the versions in between stay. The next refresh publishes what its own rules say of all that was
    found, so change these first if the version was bad because of them. Returns the newest version if nothing differs.
    """
    where = layout()
    where.check_writable()
    catalog.resolve(where, f"{dataset}@{version}")  # or there is nothing to wait for
    with only_one(f"dataset-{dataset}"):
        joined = restored(where, dataset, version)
        if (same := unchanged(where, dataset, version, joined)) is not None:
            say(LOG, f"version {same.version} of {dataset} is what version {version} was: nothing to publish")
            return same
        if by_hand := rejected_since(where, dataset, version):
            say(LOG, f"version {version} of {dataset} kept {by_hand:,} photos that were rejected by hand since")
        snapshot = publish_anew(where, dataset, version, joined)
        if announce:
            emit_event(
                PUBLISHED,
                resource={"prefect.resource.id": f"darkroom.dataset.{dataset}"},
                payload={"snapshot": f"{dataset}@{snapshot.version}"},
            )
        artifacts.show_snapshot(snapshot, manifest.read(where, joined, READABLE))
    return snapshot


def publish_anew(where: Layout, name: str, version: int, joined: ManifestRef) -> SnapshotRef:
    """The next version of ``name``, with the rows ``joined`` of ``version`` and all pages made anew."""
    card: dict[str, Any] = catalog.card(where, name, version)
    kept = proofs(where, name, version, joined)
    reporting = report_dataset.submit(
        joined, name, card["rules"].get("filter"), newest_rows(where, name), kept.get("leakage.json"),
        kept.get("labels.json"),
    )  # fmt: skip
    more = {"split_from": card["split_from"]} if "split_from" in card else {}
    pages = {**kept, "report.html": one("report", reporting)}
    return publish_snapshot(where, name, card["rules"], joined, pages, allow_jump=True, restores=version, **more)


@flow(name="collect-garbage", flow_run_name="collect garbage")
def collect_garbage(dry_run: bool = True, grace_days: Days = 7.0) -> dict[str, float]:
    """Delete what no snapshot, ledger or training needs any more; gigabytes by kind. ``dry_run``: only tell.

    Waits for refreshes and for a training on this machine, and keeps new ones waiting.
    """
    where = layout()
    where.check_writable()
    with ExitStack() as held:
        for name in datasets_of(where):  # in one order, so that two do not wait for each other
            held.enter_context(only_one(f"dataset-{name}"))
            journal.recover(where, name)
        held.enter_context(only_one(f"training-{socket.gethostname()}"))
        heaps = garbage.find(where, time.time() - grace_days * DAY_S)
        if not dry_run:
            garbage.delete(heaps)
    gigabytes = {heap.kind: heap.size_bytes / 1e9 for heap in heaps}
    verb = "would free" if dry_run else "freed"
    create_table_artifact(
        [
            {"what": heap.kind, "garbage": len(heap.paths), "GB": round(heap.size_bytes / 1e9, 3), "kept": heap.kept}
            for heap in heaps
        ],
        key="garbage", description=f"Collecting garbage {verb} {sum(gigabytes.values()):,.2f} GB",
    )  # fmt: skip
    say(LOG, f"{verb} " + ", ".join(f"{size:,.2f} GB of {kind}" for kind, size in gigabytes.items()))
    return gigabytes
