"""What a report says of a training run: figures beside trivial baselines, curves, errors, and rectangles to look at."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.pages import figures_run
from tasks.pages.dataset_page import Chart, chart
from tasks.pages.rectangles import Example, examples, read_predictions
from tasks.pages.thumbnails import link

Columns = dict[str, npt.NDArray[Any]]
Row = dict[str, Any]

CONTENTS = {
    "figures": "What it measures", "rectangles": "Rectangles", "errors": "Where it errs", "training": "Training",
    "recipe": "Recipe and versions",
}  # fmt: skip
KINDS = {"best": "Best crops", "median": "Median crops", "worst": "Worst crops", "random": "Drawn at random"}


class Strip(NamedTuple):
    """An interval, its value and its baseline as percentages of a strip's width."""

    low: float
    high: float
    value: float
    baseline: float


class Shown(NamedTuple):
    """An example with whose photo it is."""

    example: Example
    title: str
    owner: str
    licence: str
    page_url: str


class Error(NamedTuple):
    """Mean absolute error and signed bias of the size factor over some samples."""

    label: str
    samples: int
    mae: float
    bias: float


def context(run_dir: Path, pack_dir: Path, photos: Mapping[tuple[str, str], Row]) -> dict[str, Any]:
    """Everything that the run half of a report shows. ``photos``: rows of the joined table by (source, photo_id)."""
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    columns = read_predictions(run_dir)
    cards = [shown(example, photos) for example in examples(run_dir, pack_dir)]
    return {
        "contents": CONTENTS,
        "run_id": run_dir.name,
        "evaluation": evaluation,
        "threshold": 1 / (1 + math.exp(-evaluation["threshold"])),
        "figures": [(each, strip(each), sentence(each)) for each in evaluation["figures"]],
        "verdict": verdict(evaluation["figures"]),
        "examples": {title: [card for card in cards if card.example.kind == kind] for kind, title in KINDS.items()},
        "size_errors": size_errors(columns),
        "error_charts": error_charts(columns),
        "loss_chart": loss_chart(run_dir / "metrics.jsonl"),
        "settings": settings(run_dir / "train.json"),
    }


def verdict(figures: list[Row]) -> str:
    """How many figures beat the trivial answer, in one sentence that hides nothing."""
    lost = [each["label"] for each in figures if not each["beats_baseline"]]
    if not figures:
        return "This run measured nothing."
    if not lost:
        return f"All {len(figures)} figures beat their trivial baselines."
    if len(lost) == len(figures):
        return "No figure beats its trivial baseline: an answer that never looks at the photo does as well."
    won = len(figures) - len(lost)
    return f"{won} of {len(figures)} figures beat their trivial baselines; these do not: {'; '.join(lost)}."


def sentence(figure: Row) -> str:
    """Whether ``figure`` beats its baseline, and why not if it does not."""
    if figure["beats_baseline"]:
        return "beats it"
    low, high = figure.get("difference_low"), figure.get("difference_high")
    if low is not None and high is not None and low <= 0 <= high:
        return "does not beat it: the interval of the difference holds 0"
    return "does not beat it: it is worse"


def signed(value: float) -> str:
    """A difference with its sign, a true minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def strip(figure: Row) -> Strip:
    """Where the parts of ``figure`` lie on a strip that shows them all, in percent of its width."""
    marks = [figure[name] for name in ("low", "high", "value", "baseline")]
    least, span = min(marks), max(marks) - min(marks) or 1.0
    return Strip(*(4 + 92 * (mark - least) / span for mark in marks))


def shown(example: Example, photos: Mapping[tuple[str, str], Row]) -> Shown:
    """``example`` with its photo's facts, so far as the table still has them."""
    row = photos.get((example.row["source"], example.row["photo_id"]), {})
    return Shown(
        example, row.get("title") or "untitled", row.get("owner_name") or row.get("owner_id") or "unknown",
        row.get("licence") or "unstated", link(row.get("page_url")),
    )  # fmt: skip


def size_errors(columns: Columns) -> list[Error]:
    """Mean absolute error and signed bias of the size factor: of the rectangle alone, and of the system's answer.

    The system answers 1 where it calls a photo whole; its samples are weighted so that half of them are whole.
    """
    is_crop, weight = columns["is_crop"], columns["weight"]
    error = columns["pred_size_factor"] - columns["size_factor"]
    answer = np.where(columns["called_crop"], columns["pred_size_factor"], 1.0) - columns["size_factor"]
    parts = (
        ("rectangle, crops", error, weight * is_crop),
        ("rectangle, whole photos", error, weight * ~is_crop),
        ("whole system, half crops, half whole", answer, weight),
    )
    return [
        Error(
            label, int((by > 0).sum()), float(np.average(np.abs(each), weights=by)), float(np.average(each, weights=by))
        )
        for label, each, by in parts
        if by.sum() > 0
    ]


def error_charts(columns: Columns) -> list[Chart]:
    """Errors of the size factor, accuracy by size factor, reliability; none where there are no predictions."""
    is_crop = columns["is_crop"]
    if not len(is_crop):
        return []
    error = columns["pred_size_factor"] - columns["size_factor"]
    right = columns["called_crop"] == is_crop
    share = float(np.average(right, weights=columns["weight"]))
    return [
        chart(
            figures_run.size_factor_errors(error[is_crop], error[~is_crop]), "Error of the size factor",
            f"Histogram of predicted minus true size factor of {is_crop.sum():,} crops and {(~is_crop).sum():,} whole "
            f"photos. Mean absolute error and bias stand in the table.",
        ),
        chart(
            figures_run.accuracy_by_size_factor(columns["size_factor"], right, is_crop), "Accuracy by size factor",
            f"Share of samples told right as crop or whole, by tenths of the size factor; over all, weighted to half "
            f"crops, it is {100 * share:.1f} %. Intervals take samples as independent.",
        ),
        chart(
            figures_run.reliability(columns["crop_probability"], is_crop, columns["weight"]), "Reliability",
            "Share of crops against the predicted probability of a crop, by tenths; on the diagonal the network "
            "knows how sure it may be. Intervals take samples as independent.",
        ),
    ]  # fmt: skip


def loss_chart(metrics: Path) -> Chart | None:
    """The loss curve of a run; None if no epoch ended."""
    events = (json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}"))
    epochs = {event["epoch"]: event for event in events if event["event"] == "epoch"}  # the last word on each
    if not epochs:
        return None
    rows = [epochs[epoch] for epoch in sorted(epochs)]
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    return chart(
        figures_run.losses(rows), "Loss and learning rate",
        f"Loss on train and val over {len(rows):,} epochs, {seconds:,.0f} s in all. Train from {rows[0]['loss']:.4g} "
        f"to {rows[-1]['loss']:.4g}, val from {rows[0]['val_loss']:.4g} to {rows[-1]['val_loss']:.4g}.",
    )  # fmt: skip


def settings(card: Path) -> dict[str, list[tuple[str, str]]]:
    """The run's description as tables of (name, value): one for each of its parts, and ``run`` for the rest."""
    described = json.loads(card.read_text())
    tables = {name: list(flat(part)) for name, part in described.items() if isinstance(part, dict)}
    rest = {name: value for name, value in described.items() if not isinstance(value, dict)}
    return {name: rows for name, rows in {"run": list(flat(rest)), **tables}.items() if rows}


def flat(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value as text) of a nested mapping; lists of mappings, such as a history, are left out."""
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            if not any(isinstance(item, Mapping) for item in value):
                yield f"{prefix}{name}", ", ".join(map(text, value)) or "none"
        else:
            yield f"{prefix}{name}", str(value) if name.endswith("seed") else text(value)


def text(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
