"""Audit a dataset: ask its sites whether photos are still there, and purge what was removed.

Run: ``prefect deployment run 'audit-dataset/crops'``, or ``audit_dataset("crops")`` from Python.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import gather, stoppable
from storage import journal, ledger, licences, manifest, removals
from storage.layout import layout
from storage.records import AuditRef, ManifestRef
from storage.settings import settings
from tasks import sources
from tasks.audit import Removal, audit, check_known, doubts, forbidden, matches, most_believed, photos_due, verdicts
from tasks.credentials import with_keys
from tasks.errors import GateRefused
from tasks.purge import datasets_of, is_needed, purge_removed

LOG = logging.getLogger(__name__)
BATCH_PHOTOS = 50  # a minute of Flickr's budget
WORKERS = 2
RUNNER: Any = ThreadPoolTaskRunner(max_workers=WORKERS)  # Any: Prefect types its own runners as none of its runners
Calls = Annotated[
    int | None, Field(ge=0, description="Photos to look at, at most, a call each; none: all that are due.")
]


@flow(name="audit-dataset", flow_run_name="audit {dataset}", task_runner=RUNNER)
def audit_dataset(
    dataset: str,
    photos: Calls = 600,
    everything: bool = False,
    remove: Sequence[Removal] = (),
    allow_jump: bool = False,
) -> AuditRef:
    """Look at the photos of ``dataset`` that are due, and purge all removed photos from all datasets.

    ``everything``: look at photos that are not due, too. ``remove``: what somebody asked to remove, whatever its site
    says; these are purged before anything is asked, from all datasets, and never come back. ``allow_jump``: remove what
    is proven gone, however many photos that are. Raises ConfigError if there is no such dataset, and GateRefused if
    more are proven gone at once than ``most_believed``: none of these is removed, and they stay suspects.
    """
    where, start = layout(), datetime.now(UTC)
    where.check_writable()
    recover()
    matched = matches(where, remove, start)
    asked_for, unmatched = keep_out(remove, matched, start)
    scrubbed = purge()  # what was asked for just now, and what an audit before could not finish
    check_known(where, dataset)
    checks = look(dataset, photos, everything)
    withdraw(dataset)
    failed = number(checks, "failed")
    proven, suspected, refusal = judge(dataset, checks.num_rows - failed, allow_jump)
    if removals.add(where, proven):
        scrubbed += purge()
    changes = licences.licence_changes(where, dataset)
    result = AuditRef(
        dataset=dataset, checked=checks.num_rows, gone=number(checks, "gone"), failed=failed,
        suspected=suspected, removed=asked_for + len(proven), unmatched=unmatched, scrubbed_snapshots=scrubbed,
        licence_changes=changes.filter(pc.greater_equal(changes["observed_at"], start)).num_rows,
    )  # fmt: skip
    LOG.info(" ".join(f"{name}={value}" for name, value in result))
    artifacts.show_audit(result, {each.subject: number for each, number in zip(remove, matched, strict=True)})
    if refusal:
        raise refusal
    return result


def judge(dataset: str, looks: int, allow_jump: bool) -> tuple[list[dict[str, Any]], int, GateRefused | None]:
    """The removals that all looks at ``dataset`` prove, how many more photos are suspects, and why none is removed if
    they are too many for an audit of so many ``looks``: then they are doubted. ``allow_jump``: never too many."""
    where, now = layout(), datetime.now(UTC)
    seen = ledger.read(where, dataset, "checks")
    proven, suspected = verdicts(seen, now, allow_jump)
    if allow_jump or len(proven) <= (most := most_believed(looks)):
        return proven, suspected, None
    ledger.adopt(where, dataset, manifest.write_rows(where, "checks", doubts(seen, proven, now)))
    return [], suspected + len(proven), GateRefused(
        f"{len(proven):,} photos of {dataset!r} are said to be gone, of which an audit of {looks:,} looks believes at "
        f"most {most:,} at once: none was removed, and they are looked at again after a day. Look at a few, such as "
        f"{proven[0]['source']}/{proven[0]['photo_id']}; if this is right, run the audit with allow_jump=true"
    )  # fmt: skip


def keep_out(remove: Sequence[Removal], matched: Sequence[int], now: datetime) -> tuple[int, int]:
    """Keep what was asked to ``remove``: how many removals are new that known photos match, and that none does.

    ``matched``: how many known photos match each.
    """
    for each, photos in zip(remove, matched, strict=True):
        if photos:
            LOG.info("removal of %s: matches %d known photos", each.subject, photos)
        else:
            LOG.warning("removal of %s: matches no photo that is known: it is kept out from now on", each.subject)
    rows = [each.row(now) for each in remove]
    known = [row for row, photos in zip(rows, matched, strict=True) if photos]
    return removals.add(layout(), known), removals.add(layout(), [row for row in rows if row not in known])


def recover() -> None:
    """Hand over what killed downloads of any dataset left: it may be what is asked to be removed."""
    where = layout()
    for name in datasets_of(where):
        if journal.is_left(where, name):
            with only_one(f"dataset-{name}"):
                journal.recover(where, name)


def withdraw(dataset: str) -> None:
    """Take out the photos that are held and whose owner has forbidden downloads since."""
    where = layout()
    if rows := forbidden(where, dataset, datetime.now(UTC)):
        ledger.adopt(where, dataset, manifest.write_rows(where, "attempts", rows))
        LOG.info("downloads of %d photos that are held are forbidden now: the next refresh leaves them out", len(rows))


def purge() -> int:
    """Delete what is left of removed photos, while no dataset is being refreshed; how many snapshots were scrubbed."""
    where = layout()
    if not is_needed(where):
        return 0
    with ExitStack() as held:
        names = datasets_of(where)
        for name in names:  # in one order, so that two audits do not wait for each other
            held.enter_context(only_one(f"dataset-{name}"))
            journal.recover(where, name)
        purged = purge_removed(where, names)
    artifacts.forget_pictures(purged.datasets)
    return purged.snapshots


@stoppable()
def look(dataset: str, photos: int | None, everything: bool) -> pa.Table:
    """Ask for the photos that are due; the rows "checks" that came, which the ledger has adopted."""
    where = layout()
    due = photos_due(where, dataset, datetime.now(UTC), photos, everything)
    seen: list[ManifestRef] = []

    def keep(checks: ManifestRef) -> None:
        ledger.adopt(where, dataset, checks)
        seen.append(checks)

    for source in sorted(set(due["source"].to_pylist())):
        sources.named(source).check(with_keys(settings()))
        rows = due.filter(pc.equal(due["source"], source))
        starts = range(0, rows.num_rows, BATCH_PHOTOS)
        batches = [manifest.write(where, "wanted", rows.slice(start, BATCH_PHOTOS)) for start in starts]
        tasks = [
            audit.with_options(refresh_cache=True, task_run_name=f"audit {n} of {len(batches)}").submit(source, batch)
            for n, batch in enumerate(batches, start=1)
        ]
        gather(f"audit {source}", tasks, keep)
    return pa.concat_tables([manifest.read(where, ref) for ref in seen]) if seen else due.slice(0, 0)


def number(checks: pa.Table, state: str) -> int:
    """How many of ``checks`` say so."""
    return sum(each == state for each in checks["state"].to_pylist()) if checks.num_rows else 0
