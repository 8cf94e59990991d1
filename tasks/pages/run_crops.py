"""What a report shows of crop detection: rectangles and heat-maps to look at, and where it errs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tasks.pages import figures_crops
from tasks.pages.heat_maps import heat_maps
from tasks.pages.page_charts import Chart, chart
from tasks.pages.rectangles import Example, examples, frames_by_photo
from tasks.pages.thumbnails import data_uri, jpeg, link, shrink

Row = dict[str, Any]

CONTENTS = {"rectangles": "Rectangles", "heat-maps": "Where patches come from", "errors": "Where it errs"}
KINDS = {"best": "Best crops", "median": "Median crops", "worst": "Worst crops", "random": "Drawn at random"}
MAP_HEIGHT_PX = 240


class Shown(NamedTuple):
    """An example with whose photo it is."""

    example: Example
    title: str
    owner: str
    licence: str
    page_url: str


class Mapped(NamedTuple):
    """A sample as the network saw it, and the sixteen heat-maps beside it."""

    seen: str
    maps: str
    right: int  # of the sixteen patches
    consistency: float
    is_crop: bool


def context(
    run_dir: Path, pack_dir: Path, evaluation: Mapping[str, Any], photos: Mapping[tuple[str, str], Row]
) -> dict[str, Any]:
    """What the templates of this system show."""
    cards = [shown(example, photos) for example in examples(run_dir, pack_dir)]
    pictures = evaluation["pictures"]
    return {
        "examples": {title: [card for card in cards if card.example.kind == kind] for kind, title in KINDS.items()},
        "size_errors": pictures.get("size_factor_errors", []),
        "heat_maps": mapped(pictures.get("heat_maps", []), pack_dir, evaluation["split"]),
        "charts": error_charts(pictures),
    }


def shown(example: Example, photos: Mapping[tuple[str, str], Row]) -> Shown:
    """``example`` with its photo's facts, so far as the table still has them."""
    row = photos.get((example.row["source"], example.row["photo_id"]), {})
    return Shown(
        example, row.get("title") or "untitled", row.get("owner_name") or row.get("owner_id") or "unknown",
        row.get("licence") or "unstated", link(row.get("page_url")),
    )  # fmt: skip


def mapped(samples: list[Row], pack_dir: Path, split: str) -> list[Mapped]:
    """The samples whose heat-maps the evaluation kept, cut from their frames; those whose photo is gone left out."""
    frames = frames_by_photo(pack_dir, split) if samples else {}
    found = []
    for row in samples:
        frame = frames.get((row["source"], row["photo_id"]))
        if frame is None:
            continue
        high, wide, _ = frame.shape
        x1, x2, y1, y2 = row["rectangle"]
        part = frame[round(y1 * high) : round(y2 * high), round(x1 * wide) : round(x2 * wide)]
        seen = shrink(Image.fromarray(np.ascontiguousarray(part)), MAP_HEIGHT_PX)
        seen = seen.resize((round(seen.width * MAP_HEIGHT_PX / seen.height), MAP_HEIGHT_PX))
        cells, shares = np.asarray(row["true_cells"]), np.asarray(row["probabilities"])
        maps = heat_maps(shares, seen.width, seen.height, cells)
        right = int((shares.reshape(16, 16).argmax(1) == cells).sum())
        is_crop = row["rectangle"] != [0.0, 1.0, 0.0, 1.0]
        found.append(Mapped(data_uri(jpeg(seen)), data_uri(jpeg(maps, 92)), right, row["consistency"], is_crop))
    return found


def error_charts(pictures: Mapping[str, Any]) -> list[Chart]:
    """Errors of the size factor, accuracy by size factor and by border; those that the evaluation has."""
    charts = []
    if errors := pictures.get("size_factor_errors"):
        words = "; ".join(f"{e['label']}: {e['mae']['value']:.3f}, bias {e['bias']['value']:+.3f}" for e in errors)
        drawn = figures_crops.size_factor_errors(errors)
        charts.append(chart(drawn, "Error of the size factor", f"Predicted less true. Mean absolute error of {words}."))
    if bins := pictures.get("accuracy_by_size_factor"):
        names = ["whole" if each["from"] >= 1 else f"{each['from']:.1f}–{each['to']:.1f}" for each in bins]
        drawn = figures_crops.shares_right("accuracy-by-size-factor", names, bins, "true size factor")
        said = "Share of samples told right as crop or whole, by tenths of the size factor. Intervals resample photos."
        charts.append(chart(drawn, "Accuracy by size factor", said))
    if edges := pictures.get("accuracy_by_edge"):
        drawn = figures_crops.shares_right("accuracy-by-edge", [each["edge"] for each in edges], edges, "pinned border")
        said = "Share of crops called such, by the border of the original frame that they touch."
        charts.append(chart(drawn, "Accuracy by border", said))
    return charts
