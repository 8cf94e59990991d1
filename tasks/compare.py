"""Hold runs against each other on the same test photos: one table with paired intervals, one figure, one page."""

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from models import comparison
from models.errors import ConfigError as Impossible
from storage import manifest
from storage.layout import Layout, layout, replacing, write_bytes
from storage.records import FileRef, Record
from tasks import caching
from tasks.errors import ConfigError
from tasks.pages import compare_page, figures_compare
from tasks.pages.templating import templates

LOG = logging.getLogger(__name__)
FILES = {
    "comparison": "comparison.json", "table": "comparison.parquet", "figure": "figure.svg", "report": "report.html",
}  # fmt: skip


class JudgedRun(Record):
    """One run of a comparison: which recipe it stands for, its seed, and its score on every test sample."""

    arm: str
    seed: int
    run_id: str
    scores: FileRef


class Compared(Record):
    """The files of a comparison, in the folder ``Layout.comparison(digest)``."""

    digest: str
    comparison: FileRef
    table: FileRef
    figure: FileRef
    report: FileRef


def scores_by_arm(where: Layout, runs: Sequence[JudgedRun]) -> dict[str, dict[int, pa.Table]]:
    """The rows of each scores.parquet, by arm as given and by seed; raises ConfigError for one that is given twice."""
    found: dict[str, dict[int, pa.Table]] = {}
    for run in runs:
        seeds = found.setdefault(run.arm, {})
        if run.seed in seeds:
            raise ConfigError(f"{run.arm} is given twice with seed {run.seed}: give each recipe and seed once")
        seeds[run.seed] = pq.read_table(where.root / run.scores.path)
    return found


def compared(where: Layout, runs: Sequence[JudgedRun]) -> dict[str, Any]:
    """What comparison.json says; raises ConfigError for runs that cannot be compared."""
    try:
        found = comparison.compare(scores_by_arm(where, runs))
    except Impossible as error:
        raise ConfigError(str(error)) from error
    return {**found, "runs": [run.model_dump(include={"arm", "seed", "run_id"}) for run in runs]}


def page(found: dict[str, Any], title: str) -> str:
    """The report of a comparison."""
    context = {"title": title, "kind": "comparison of runs", "comparison": compare_page.context(found)}
    return templates().get_template("page.html.j2").render(context, dataset=None, run=None)


@task(**caching.stage("compare", retries=0))
def compare(runs: list[JudgedRun], title: str) -> Compared:
    """Write comparison.json, comparison.parquet, figure.svg and report.html of ``runs``."""
    where = layout()
    found = compared(where, runs)
    text = json.dumps({"title": title, **found}, indent=1).encode()
    digest = hashlib.sha256(text).hexdigest()[:16]
    folder = where.comparison(digest)
    write_bytes(folder / "comparison.json", text)
    with replacing(folder / "comparison.parquet") as part:
        pq.write_table(comparison.table_of(found), part, compression="zstd")
    write_bytes(folder / "figure.svg", figures_compare.ablation(found["figures"]))
    write_bytes(folder / "report.html", page(found, title).encode())
    LOG.info("compared arms=%d figures=%d photos=%d", len(found["arms"]), len(found["figures"]), found["photos"])
    files = {name: manifest.file_ref(where, folder / file) for name, file in FILES.items()}
    return Compared(digest=digest, **files)
