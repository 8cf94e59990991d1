"""What a flow run shows in the Prefect UI: tables, pictures and links. Flows publish it: a cached task shows none."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from storage.layout import layout
from storage.records import AuditRef, ComparisonRef, PackRef, Plan, PredictionRef, RunRef, SnapshotRef
from storage.settings import settings
from tasks.export import ExportRef
from tasks.model_export import NOT_EVALUATED, ExportedModel
from tasks.pages.compare_page import outcome, pair_name, probability, words
from tasks.pages.rectangles import rectangles_jpeg
from tasks.pages.thumbnails import contact_sheet_jpeg
from tasks.publish import count


def show_snapshot(snapshot: SnapshotRef, joined: pa.Table) -> None:
    """Counts by split and by reason, a contact sheet, and a link to the report of a snapshot."""
    counts, reasons = count(joined)
    title = f"{snapshot.dataset}, version {snapshot.version}"
    key = f"dataset-{snapshot.dataset}"
    create_table_artifact(
        [{"split": split, "photos": photos} for split, photos in counts.items()],
        key=f"{key}-splits", description=f"Photos of {title}",
    )  # fmt: skip
    create_table_artifact(
        [{"stage / reason": reason, "photos": photos} for reason, photos in reasons.items()],
        key=f"{key}-rejections", description=f"Why photos are not in {title}",
    )  # fmt: skip
    _show_picture(f"{key}-photos", contact_sheet_jpeg(joined, layout()), f"Some photos of {title}")
    _show_link(f"{key}-report", Path(snapshot.uri) / "report.html", f"Report of {title}")


def show_plan(plan: Plan) -> None:
    """What a refresh would cost, query by query."""
    create_table_artifact(
        [row.model_dump() for row in plan.queries],
        key=f"dataset-{plan.dataset}-plan", description=f"A refresh of {plan.dataset} would take {cost(plan)}",
    )  # fmt: skip


def cost(plan: Plan) -> str:
    """``plan`` in one line."""
    return (
        f"{plan.windows:,} windows, {plan.calls:,} calls, {plan.hours:,.1f} hours and {plan.gigabytes:,.1f} GB "
        f"for {plan.photos:,} photos at most" + (f", in {plan.refreshes} refreshes" if plan.refreshes > 1 else "")
    )


def show_run(model: str, run: RunRef, pack: PackRef, report: Path) -> None:
    """Figures beside their baselines, true and predicted rectangles, and a link to the report of a run.

    ``model``: what the runs of one history in the UI have in common, such as dataset and recipe.
    """
    key = f"model-{model}".replace("_", "-")
    create_table_artifact(
        _figure_rows(run),
        key=f"{key}-figures",
        description=f"Figures of run {run.run_id} on its test photos",
    )
    picture = rectangles_jpeg(Path(run.uri), layout().pack(pack.digest))
    _show_picture(f"{key}-rectangles", picture, "True (green) and predicted (red) rectangles")
    _show_link(f"{key}-report", report, f"Report of run {run.run_id}")


def show_comparison(dataset: str, found: ComparisonRef, title: str) -> None:
    """Figures by arm, pairs of arms with paired intervals, and a link to the report of a comparison."""
    folder = Path(found.uri)
    measured = json.loads((folder / "comparison.json").read_text())["figures"]
    key = f"comparison-{dataset}".replace("_", "-")
    create_table_artifact(
        [_arms_row(figure) for figure in measured], key=f"{key}-figures", description=f"Figures of {title}"
    )
    create_table_artifact(
        [
            {
                "figure": figure["label"], "arms": pair_name(pair), "difference": f"{pair['value']:+.3f}",
                "95 % interval": f"{pair['low']:+.3f} to {pair['high']:+.3f}",
                "p, corrected": probability(pair["p_holm"]), "the first named is": outcome(pair),
            }
            for figure in measured
            for pair in figure["pairs"]
        ],
        key=f"{key}-pairs", description=f"Paired differences of {title}",
    )  # fmt: skip
    _show_link(f"{key}-report", folder / "report.html", f"Report of {title}")


def _arms_row(figure: Mapping[str, Any]) -> dict[str, str]:
    """One figure: each arm with its interval, and the baseline."""
    cells = {words(arm["arm"]): f"{arm['value']:.3f} [{arm['low']:.3f}, {arm['high']:.3f}]" for arm in figure["arms"]}
    baseline = "" if figure["baseline"] is None else f"{figure['baseline']:.3f}"
    return {"figure": figure["label"], **cells, "baseline": baseline}


def show_model(exported: ExportedModel) -> None:
    """The files of an exported model, their sizes and digests; and what it lacks."""
    said = [f"Model of run {exported.run_id}.", None if exported.is_evaluated else NOT_EVALUATED, exported.left_out]
    create_table_artifact(
        [{"file": file.path, "MB": f"{file.size_bytes / 1e6:,.1f}", "sha256": file.sha256} for file in exported.files],
        key="model-export", description=" ".join(filter(None, said)),
    )  # fmt: skip


def show_prediction(found: PredictionRef, page: Path) -> None:
    """How many photos were answered, and a link to the page with the answers."""
    table = [{"photos": found.photos, "unreadable": found.unreadable, "run": found.run_id, "folder": found.uri}]
    create_table_artifact(table, key="prediction", description=f"Photos answered by run {found.run_id}")
    _show_link("prediction-report", page, f"Answers of run {found.run_id}")


def show_pipeline(snapshot: SnapshotRef, run: RunRef) -> None:
    """One page about a pipeline run: counts, figures, and links to both reports."""
    rows = _figure_rows(run)
    lines = [
        f"**{snapshot.dataset}, version {snapshot.version}**: "
        + ", ".join(f"{photos:,} {part}" for part, photos in snapshot.counts.items()),
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(row.values()) + " |" for row in rows),
        "",
        f"[Report of the model]({_address(Path(run.uri) / 'report.html')}), "
        f"[report of the dataset]({_address(Path(snapshot.uri) / 'report.html')})",
    ]
    create_markdown_artifact(
        "\n".join(lines), key=f"pipeline-{snapshot.dataset}", description=f"What became of {snapshot.dataset}"
    )


def show_audit(audit: AuditRef, asked_for: Mapping[str, int]) -> None:
    """What became of the photos that were looked at, and how many known photos each removal matches."""
    create_table_artifact(
        [{"what": name.replace("_", " "), "number": number} for name, number in audit if name != "dataset"]
        + [{"what": f"known photos of the removal of {what}", "number": number} for what, number in asked_for.items()],
        key=f"dataset-{audit.dataset}-audit", description=f"Audit of {audit.dataset}",
    )  # fmt: skip


def show_export(exported: ExportRef) -> None:
    """Photos by split of an export, and where it lies."""
    create_table_artifact(
        [{"split": split, "photos": photos} for split, photos in exported.photos.items()],
        key=f"dataset-{exported.dataset}-export-{exported.format}",
        description=f"{exported.dataset}, version {exported.version}, as {exported.format} in `{exported.uri}`: "
        f"{exported.size_bytes / 1e6:,.1f} MB",
    )


def forget_pictures(datasets: Iterable[str]) -> int:
    """Delete the pages of pictures of ``datasets`` and of their models, which may show a removed photo; how many."""
    keys = [ArtifactFilterKey(any_=[f"dataset-{name}-photos"]) for name in datasets]
    keys += [ArtifactFilterKey(like_=f"model-{name}-%-rectangles") for name in datasets]
    deleted = 0
    with get_client(sync_client=True) as client:
        for key in keys:
            while found := client.read_artifacts(artifact_filter=ArtifactFilter(key=key), offset=0):
                for page in found:
                    client.delete_artifact(page.id)
                deleted += len(found)
    return deleted


def _figure_rows(run: RunRef) -> list[dict[str, str]]:
    return [
        {
            "figure": figure.label, "value": f"{figure.value:.3f}",
            "95 % interval": f"{figure.low:.3f} to {figure.high:.3f}",
            "baseline": f"{figure.baseline:.3f}", "better": "yes" if figure.beats_baseline else "no",
        }
        for figure in run.figures
    ]  # fmt: skip


def _show_picture(key: str, jpeg: bytes, description: str) -> None:
    """A page with one picture, its bytes within: it needs no other server, and stays with the run."""
    data = base64.b64encode(jpeg).decode()
    create_markdown_artifact(f"![{description}](data:image/jpeg;base64,{data})", key=key, description=description)


def _show_link(key: str, file: Path, text: str) -> None:
    """A link to ``file`` on the file server of ``make ui``, with the path for whoever runs without it."""
    create_link_artifact(_address(file), link_text=text, key=key, description=f"{text}, on this machine `{file}`")


def _address(file: Path) -> str:
    return f"{settings().files_url}/{file.relative_to(layout().root)}"
