"""What a report says of a training run: figures beside trivial baselines, calibration, responses, curves, the recipe.

What a system alone can show (rectangles, heat-maps, confusions) comes from the page of that system.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.pages import figures_run, run_categories, run_crops
from tasks.pages.page_charts import Chart, chart

Row = dict[str, Any]

SYSTEMS = {"crops": run_crops, "categories": run_categories}
RESPONDING: dict[str, dict[str, str]] = {  # figures that are drawn against perturbations, and what they are called
    "crops": {
        "crop_accuracy": "crop or whole, accuracy", "rectangle_iou_crops": "IoU of crops", "patch_top1": "patches told",
    },
    "categories": {"accuracy": "accuracy"},
}  # fmt: skip


class Strip(NamedTuple):
    """An interval, its value and its baseline as percentages of a strip's width."""

    low: float
    high: float
    value: float
    baseline: float


class Calibrated(NamedTuple):
    """One probability: its calibration errors with intervals, and its reliability as a chart."""

    label: str
    temperature: str
    before: Row
    after: Row
    if_calibrated: float
    chart: Chart


def context(run_dir: Path, pack_dir: Path, photos: Mapping[tuple[str, str], Row]) -> dict[str, Any]:
    """Everything that the run half of a report shows. ``photos``: rows of the joined table by (source, photo_id)."""
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    kind = evaluation["recipe"]["system"]["kind"]
    return {
        "contents": {
            "figures": "What it measures",
            **SYSTEMS[kind].CONTENTS,
            "calibration": "How sure it may be",
            "responses": "What it responds to",
            "training": "Training",
            "recipe": "Recipe and versions",
        },
        "run_id": run_dir.name,
        "kind": kind,
        "evaluation": evaluation,
        "figures": [(each, strip(each), sentence(each)) for each in evaluation["figures"]],
        "verdict": verdict(evaluation["figures"]),
        "system": SYSTEMS[kind].context(run_dir, pack_dir, evaluation, photos),
        "calibration": [calibrated(name, each) for name, each in evaluation["calibration"].items()],
        "responses": response_charts(evaluation["responses"], RESPONDING[kind]),
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


def calibrated(name: str, found: Mapping[str, Any]) -> Calibrated:
    """One entry of an evaluation's ``calibration``."""
    label = found["label"]
    drawn = chart(
        figures_run.reliability(name, found["before"]["bins"], found["after"]["bins"]), f"Reliability: {label}",
        "How often it was so against how probable the network said it was, by tenths; on the diagonal the network "
        "knows how sure it may be. Intervals of 95 % resample photos.",
    )  # fmt: skip
    before, after = found["before"]["calibration_error"], found["after"]["calibration_error"]
    ideal = found["after"]["calibration_error_if_calibrated"]
    return Calibrated(label, f"{found['temperature']:.2f}", before, after, ideal, drawn)


def response_charts(responses: Mapping[str, list[Row]], names: Mapping[str, str]) -> list[Chart]:
    """One chart a perturbation: how the figures ``names`` move with its strength."""
    return [
        response_chart(name.replace("_", " "), curves)
        for name, trials in responses.items()
        if (curves := response_curves(trials, names))
    ]


def response_curves(trials: list[Row], names: Mapping[str, str]) -> dict[str, list[Row]]:
    """Of each of the figures ``names``, by its label, the values over the strengths."""
    curves: dict[str, list[Row]] = {}
    for trial in trials:
        for each in trial["figures"]:
            if each["name"] in names:
                curves.setdefault(names[each["name"]], []).append({"strength": trial["strength"], **each})
    return curves


def response_chart(words: str, curves: Mapping[str, list[Row]]) -> Chart:
    """The curves of one perturbation, and in words where they begin and end."""
    moved = "; ".join(f"{name} from {rows[0]['value']:.3f} to {rows[-1]['value']:.3f}" for name, rows in curves.items())
    return chart(figures_run.responses(words, curves), words.capitalize(), f"By strength; 0 changes nothing. {moved}.")


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
