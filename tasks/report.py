"""Reports: one HTML file each that needs no network, script or font, for a person to look at.

Whatever comes from a photo site is hostile: templates escape it, addresses are checked for their scheme, and a content
security policy in the page forbids every request.
"""

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
from prefect import task

from storage import manifest
from storage.layout import Layout, layout, write_bytes
from storage.records import FileRef, ManifestRef, PackRef
from tasks import caching, dataset_page, run_page
from tasks.figures import Rules

LOG = logging.getLogger(__name__)


@cache
def templates() -> jinja2.Environment:
    """The templates of pages; everything that they print is escaped, and a missing name is an error."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"count": lambda n: f"{n:,}", "percent": percent, "megabytes": megabytes}
    pages.filters |= {"words": dataset_page.words, "figure": lambda value: f"{value:.3f}", "signed": run_page.signed}
    return pages


def megabytes(size_bytes: int) -> str:
    """``253 MB``, on one line; a tenth is told where it matters."""
    return f"{size_bytes / 1e6:,.{0 if size_bytes >= 1e8 else 1}f}\N{NO-BREAK SPACE}MB"


def percent(share: float) -> str:
    """A share as a percentage that never rounds something to nothing, nor all but all to all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def dataset_report(table: pa.Table, title: str, layout: Layout, rules: Rules | None = None) -> str:
    """A page about the joined ``table`` (schema "publish"); ``rules``: the filter's, drawn in the chart of sizes."""
    context = {
        "title": title,
        "kind": "dataset",
        "dataset": dataset_page.context(table, layout, rules or {}),
        "run": None,
    }
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


@task(**caching.stage("report", name="report-dataset"))
def report_dataset(joined: ManifestRef, dataset: str, rules: Mapping[str, Any] | None = None) -> FileRef:
    """The page about the photos of ``joined``, below ``stages/report``."""
    where = layout()
    page = dataset_report(manifest.read(where, joined), dataset, where, rules).encode()
    file = where.root / "stages" / "report" / f"{hashlib.sha256(page).hexdigest()}.html"
    write_bytes(file, page)
    LOG.info("reported on %d photos of %s in %d bytes", joined.rows, dataset, len(page))
    return manifest.file_ref(where, file)


@task(**caching.stage("report", name="report-run"))
def report_run(joined: ManifestRef, run: FileRef, pack: PackRef, title: str = "") -> FileRef:
    """The page about a run, beside the evaluation.json that ``run`` names."""
    where = layout()
    run_dir = (where.root / run.path).parent
    page = run_report(manifest.read(where, joined), run_dir, where.pack(pack.digest), where, title).encode()
    write_bytes(run_dir / "report.html", page)
    LOG.info("reported on run %s in %d bytes", run_dir.name, len(page))
    return manifest.file_ref(where, run_dir / "report.html")
