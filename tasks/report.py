"""Reports: one HTML file each that needs no network, script or font, for a person to look at.

Whatever comes from a photo site is hostile: templates escape it, addresses are checked for their scheme, and a content
security policy in the page forbids every request.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task

from storage import manifest
from storage.layout import Layout, layout, write_bytes
from storage.records import FileRef, ManifestRef, PackRef
from tasks import caching
from tasks.companions.model_card import model_card
from tasks.pages import dataset_page, page_rows, run_page
from tasks.pages.figures import Rules
from tasks.pages.templating import templates

LOG = logging.getLogger(__name__)


def dataset_report(
    table: pa.Table,
    title: str,
    layout: Layout,
    rules: Rules | None = None,
    before: pa.Table | None = None,
    leakage: Mapping[str, Any] | None = None,
    label_account: Mapping[str, Any] | None = None,
) -> str:
    """A page about the joined ``table`` (schema "publish", at least the columns of ``page_rows``).

    ``rules``: the filter's, drawn in the chart of sizes. ``before``: the rows of the version before. ``leakage`` and
    ``label_account``: what the audit of the splits and the labelling found.
    """  # fmt: skip
    shown = dataset_page.context(table, layout, rules or {}, before, leakage, label_account)
    context = {"title": title, "kind": "dataset", "dataset": shown, "run": None}
    return templates().get_template("page.html.j2").render(context)


def run_report(
    table: pa.Table, run_dir: Path, pack_dir: Path, layout: Layout, title: str = "", rules: Rules | None = None
) -> str:
    """A page about the run in ``run_dir``, trained on the pack in ``pack_dir``, and on its dataset ``table``."""
    context = {
        "title": title or f"Run {run_dir.name}",
        "kind": "training run",
        "dataset": dataset_page.context(table, layout, rules or {}),
        "run": run_page.context(run_dir, pack_dir, by_key(table)),
    }
    return templates().get_template("page.html.j2").render(context)


def by_key(table: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    """What a caption says, of every photo of ``table``."""
    captions = table.select(["source", "photo_id", "title", "owner_name", "owner_id", "licence", "page_url"])
    return {(row["source"], row["photo_id"]): row for row in captions.to_pylist()}


def page_of(
    layout: Layout,
    joined: ManifestRef,
    dataset: str,
    rules: Rules | None = None,
    before: ManifestRef | None = None,
    leakage: FileRef | None = None,
    label_account: FileRef | None = None,
) -> str:
    """``dataset_report`` of what these references name, of which no column is read that the page does not use."""
    rows = [page_rows.read(layout, ref) if ref else None for ref in (joined, before)]
    found = [json.loads((layout.root / ref.path).read_bytes()) if ref else None for ref in (leakage, label_account)]
    return dataset_report(rows[0], dataset, layout, rules, rows[1], *found)


@task(**caching.stage("report", name="report-dataset"))
def report_dataset(
    joined: ManifestRef,
    dataset: str,
    rules: Mapping[str, Any] | None = None,
    previous: ManifestRef | None = None,
    leakage: FileRef | None = None,
    label_account: FileRef | None = None,
) -> FileRef:
    """The page about the photos of ``joined``, below ``stages/report``. ``previous``: the version before, joined."""
    where = layout()
    page = page_of(where, joined, dataset, rules, previous, leakage, label_account).encode()
    file = where.root / "stages" / "report" / f"{hashlib.sha256(page).hexdigest()}.html"
    write_bytes(file, page)
    LOG.info("reported on %d photos of %s in %d bytes", joined.rows, dataset, len(page))
    return manifest.file_ref(where, file)


@task(**caching.stage("report", name="report-run"))
def report_run(joined: ManifestRef, run: FileRef, pack: PackRef, title: str, dataset: str) -> FileRef:
    """The page about a run, beside the evaluation.json that ``run`` names, and its model card, README.md.

    ``title``: of the page, which names ``dataset`` too: the name and version of what ``joined`` are the rows of.
    """
    where = layout()
    run_dir, table = (where.root / run.path).parent, manifest.read(where, joined)
    page = run_report(table, run_dir, where.pack(pack.digest), where, title).encode()
    write_bytes(run_dir / "README.md", model_card(table, run_dir, dataset).encode())
    write_bytes(run_dir / "report.html", page)
    LOG.info("reported on run %s in %d bytes", run_dir.name, len(page))
    return manifest.file_ref(where, run_dir / "report.html")
